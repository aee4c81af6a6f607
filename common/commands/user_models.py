"""The models, the inputs and the rules that a user names for two models."""

import argparse
import pathlib
from typing import Any

import jax

from common.commands import arguments
from common.registry import library_of

MODEL = "package.module:name"


def add_pair(parser: argparse.ArgumentParser) -> None:
    """Adds LEFT, RIGHT and their inputs."""
    parser.add_argument("left", metavar="LEFT", help=MODEL)
    parser.add_argument("right", metavar="RIGHT", help=MODEL)
    add_inputs(parser, required=True)


def add_inputs(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Adds `--inputs`."""
    parser.add_argument(
        "--inputs",
        nargs="+",
        required=required,
        metavar="I",
        help="FILE.npz, or a shape such as shape=8,32,32,3 for normal samples",
    )


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


def batch(words: list[str], seed: int) -> Any:
    """Reads the inputs: one array, or a tuple of several.

    Args:
        words: the values of `--inputs`.
        seed: of random samples.

    Raises:
        ValueError: if there are none.
    """
    arrays = arguments.inputs(words, seed)
    if not arrays:
        raise ValueError(
            f"--inputs: got no arrays in {words}, expected one or more. Write "
            "them with `numpy.savez`."
        )
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def rules(path: pathlib.Path | None) -> str | None:
    """Reads a file of rules, if there is one."""
    return None if path is None else path.read_text()


def _is_model(x: Any) -> bool:
    if isinstance(x, type):
        return False
    try:
        return bool(library_of(x))
    except TypeError:
        return False
