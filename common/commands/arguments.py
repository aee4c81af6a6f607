"""The functions and the inputs that a user names on the command line."""

import importlib
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from common.commands import files, user_modules

SHOWN_NAMES = 8
"""How many names of a module a message shows."""


def function(name: str) -> Any:
    """Imports `package.module:name` from the working directory.

    Raises:
        ValueError: if the name is not of this form, or not a callable.
        ImportError: if there is no such module, or it does not import.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError(
            f"function: got {name!r}, expected package.module:name. Put a "
            "colon between the module and the name."
        )
    found = _import_module(name, module)
    for word in attribute.split("."):
        if not hasattr(found, word):
            raise ValueError(
                f"function {name!r}: got no {word!r} in {module}, expected a "
                f"function or a model. These are there: {_names_in(found)}."
            )
        found = getattr(found, word)
    if not callable(found):
        raise ValueError(
            f"function {name!r}: got {type(found).__name__}, expected a "
            "callable. Name a function or a model."
        )
    return found


def _names_in(module: Any) -> str:
    """Returns the names that a user may have meant, for a message."""
    names = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value)
    ]
    return ", ".join(names[:SHOWN_NAMES]) or "no callable"


def _import_module(name: str, module: str) -> Any:
    """Imports a module of the user.

    Args:
        name: what the user typed, for the messages.
        module: its dotted name.
    """
    user_modules.search_working_directory()
    user_modules.require_no_clash(name, module)
    try:
        # As in the user's own process: with x64 on, weights would be drawn
        # in float64.
        with jax.enable_x64(False):
            return importlib.import_module(module)
    except user_modules.NameClashError:
        raise
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise ImportError(
                f"function {name!r}: got an import of {error.name!r} in "
                f"{module}, which Python does not find, expected an "
                f"installed module. Install {error.name!r}."
            ) from error
        raise ImportError(
            f"function {name!r}: got no module named {error.name!r}, expected "
            "one in the working directory or an installed one. Check the "
            "spelling, or change to the folder that contains it."
        ) from error
    except Exception as error:
        raise ImportError(
            f"function {name!r}: got {type(error).__name__} while importing "
            f"{module} ({error}), expected a module that imports. Run "
            f'`python -c "import {module}"` to see the traceback.'
        ) from error


def inputs(
    words: Sequence[str], seed: int, option: str = "--inputs"
) -> list[np.ndarray]:
    """Reads arrays from files, and samples arrays of given shapes.

    Args:
        words: each is `FILE.npz`, or `shape=8,32,32,3` for standard normal
            samples.
        seed: seed of the samples.
        option: the name of the option, for the messages.

    Raises:
        ValueError: if a word has neither form, or a file holds no arrays.
    """
    return sum(inputs_of_words(words, seed, option), [])


def inputs_of_words(
    words: Sequence[str], seed: int, option: str
) -> list[list[np.ndarray]]:
    """Does the same, with a list of arrays for each word."""
    rng = np.random.default_rng(seed)
    arrays: list[list[np.ndarray]] = []
    for word in words:
        if word.startswith("shape="):
            arrays.append([rng.normal(size=integers(option, word))])
        elif word.endswith(".npz"):
            arrays.append(_read(option, pathlib.Path(word)))
        else:
            raise ValueError(
                f"{option}: got {word!r}, expected FILE.npz or shape=8,32. "
                "Save the arrays with `numpy.savez`."
            )
    return arrays


def integers(option: str, word: str) -> tuple[int, ...]:
    """Reads the integers of a word such as `shape=8,32`.

    Args:
        option: the name of the option, for the message.
        word: a name, an equals sign, and integers.

    Raises:
        ValueError: if there is anything else.
    """
    name, _, numbers = word.partition("=")
    try:
        return tuple(int(number) for number in numbers.split(",") if number)
    except ValueError:
        raise ValueError(
            f"{option}: got {word!r}, expected integers after {name}=. "
            "Separate them by commas."
        ) from None


def _read(option: str, path: pathlib.Path) -> list[np.ndarray]:
    files.require_exists(path, option, "Write it with `numpy.savez`")
    try:
        with np.load(path) as stored:
            return [stored[name] for name in stored.files]
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{option} {str(path)!r}: got a file that is not an archive of "
            f"plain arrays ({error}), expected one. Write it with "
            "`numpy.savez`."
        ) from error
