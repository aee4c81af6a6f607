"""Functions and inputs, as the command line names them."""

import importlib
import os
import pathlib
import sys
import zipfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np


def function(name: str) -> Any:
    """Imports `package.module:name`.

    Raises:
        ValueError: if it is not of this form, or no callable.
        ImportError: if there is no such module.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError(
            f"function: got {name!r}, expected package.module:name. Put a "
            "colon between the module and the name."
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        # As the user would: with x64 on, weights would be drawn in float64.
        with jax.enable_x64(False):
            found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise ImportError(
                f"function {name!r}: got an import of {error.name!r} in "
                f"{module}, which is not installed, expected what it imports "
                "to be there. Install it."
            ) from error
        raise ImportError(
            f"function {name!r}: got no module named {error.name!r}, expected "
            "one that Python finds from this folder. Check the spelling, or "
            "change to the folder that it is in."
        ) from error
    except Exception as error:
        raise ImportError(
            f"function {name!r}: got {type(error).__name__} while importing "
            f"{module} ({error}), expected a module that imports. Try "
            f'`python -c "import {module}"`.'
        ) from error
    for word in attribute.split("."):
        if not hasattr(found, word):
            raise ValueError(
                f"function {name!r}: got no {word!r} in {module}, expected a "
                "function or a module. Check the spelling."
            )
        found = getattr(found, word)
    if not callable(found):
        raise ValueError(
            f"function {name!r}: got {type(found).__name__}, expected "
            "something to call. Name a function."
        )
    return found


def inputs(words: Sequence[str], seed: int) -> list[np.ndarray]:
    """Reads arrays from files and draws those that have a shape only.

    Args:
        words: `FILE.npz`, or `shape=8,32,32,3`.
        seed: of the drawn ones, from N(0, 1).

    Raises:
        ValueError: if a word is neither, or a file holds no arrays.
    """
    rng = np.random.default_rng(seed)
    arrays: list[np.ndarray] = []
    for word in words:
        if word.startswith("shape="):
            arrays.append(rng.normal(size=_shape(word)))
        elif word.endswith(".npz"):
            arrays += _read(pathlib.Path(word))
        else:
            raise ValueError(
                f"--inputs: got {word!r}, expected FILE.npz or shape=8,32. "
                "Save the arrays with `numpy.savez`."
            )
    return arrays


def _shape(word: str) -> tuple[int, ...]:
    sizes = word.removeprefix("shape=")
    try:
        return tuple(int(it) for it in sizes.split(",") if it)
    except ValueError:
        raise ValueError(
            f"--inputs: got {word!r}, expected integers such as "
            "shape=8,32,32,3. Separate them by commas."
        ) from None


def _read(path: pathlib.Path) -> list[np.ndarray]:
    try:
        with np.load(path) as stored:
            return [stored[name] for name in stored.files]
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"--inputs {str(path)!r}: got no archive of plain arrays "
            f"({error}), expected one of `numpy.savez`. Write it again."
        ) from error
