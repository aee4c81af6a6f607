"""The models, and the rules, that a user names."""

import argparse
import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import jax

from common.commands import arguments, files
from common.registry import library_of

MODEL = "package.module:name"
OPTIONS = {"right_args": "--right-inputs", "dtype=None": "--dtype none"}
"""The options for arguments that messages of `diff` name."""


def add_pair(parser: argparse.ArgumentParser) -> None:
    """Adds LEFT and RIGHT."""
    parser.add_argument("left", metavar="LEFT", help=MODEL)
    parser.add_argument("right", metavar="RIGHT", help=MODEL)


def model(name: str) -> Any:
    """Imports a model, or calls the function or class that makes one.

    Args:
        name: `package.module:name`, imported from the working directory.

    Raises:
        ValueError: if it is neither a model nor makes one.
        ImportError: if there is no such module, or it does not import.
    """
    found = arguments.function(name)
    if _is_model(found):
        return found
    try:
        # As in the user's own process: with x64 on, weights would be drawn
        # in float64.
        with jax.enable_x64(False):
            made = found()
    except TypeError as error:
        raise ValueError(
            f"model {name!r}: got TypeError when calling it without arguments "
            f"({error}), expected a function that returns a model. Write one, "
            "which passes the arguments."
        ) from error
    if not _is_model(made):
        raise ValueError(
            f"model {name!r}: got {type(made).__name__}, expected an Equinox "
            "model, a pair of a model and its state, or an NNX module. Return "
            "what the library's constructor returned."
        )
    return made


@contextlib.contextmanager
def report_type_errors() -> Iterator[None]:
    """Turns a TypeError into a ValueError, which is reported in one line.

    Models and functions of the user raise it when they are called.

    Raises:
        ValueError: in place of a TypeError.
    """
    try:
        yield
    except TypeError as error:
        message = str(error)
        for argument, option in OPTIONS.items():
            message = message.replace(f"`{argument}`", f"`{option}`")
        raise ValueError(message) from error


def rules(path: pathlib.Path | None) -> str | None:
    """Reads a file of rules, if the user named one.

    Raises:
        ValueError: if it does not exist.
    """
    files.require_exists(path, "--rules", "Write it with `align --rules`")
    return None if path is None else path.read_text()


def _is_model(x: Any) -> bool:
    if isinstance(x, type):
        return False
    try:
        return bool(library_of(x))
    except TypeError:
        return False
