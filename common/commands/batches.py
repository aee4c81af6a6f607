"""The inputs of two models or functions, which may differ in their form."""

import argparse
from typing import Any

import numpy as np

from common.commands import arguments

TRANSPOSE = "transpose="
OPTIONS = ("inputs", "left_inputs", "right_inputs")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--inputs`, `--left-inputs` and `--right-inputs`."""
    parser.add_argument(
        "--inputs",
        nargs="+",
        metavar="I",
        help="FILE.npz, or a shape such as shape=8,32,32,3 for normal samples",
    )
    for side in ("left", "right"):
        parser.add_argument(
            f"--{side}-inputs",
            nargs="+",
            metavar="I",
            help=f"those of {side.upper()}, if they differ; "
            "transpose=0,3,1,2 permutes the axes of the array at the same "
            "place in --inputs, or else in those of the other side",
        )


def read(
    options: argparse.Namespace,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Reads the inputs of both sides.

    Args:
        options: with the values of `OPTIONS`, and the seed of random samples.

    Returns:
        The arrays of the left side and those of the right side: the same
        list if only `--inputs` is given.

    Raises:
        ValueError: if a side has no inputs, or a word cannot be read.
    """
    both = _read("--inputs", options.inputs, options.seed, None)
    words = {"left": options.left_inputs, "right": options.right_inputs}
    # A transpose without `--inputs` needs the arrays of the other side first.
    sides = sorted(words, key=lambda side: _has_transpose(words[side]))
    found: dict[str, list[np.ndarray]] = {}
    for side in sides:
        option = f"--{side}-inputs"
        other = next(iter(found.values()), None)
        base = other if both is None else both
        own = _read(option, words[side], options.seed, base)
        arrays = both if own is None else own
        if arrays is None:
            name = option if any(words.values()) else "--inputs"
            raise ValueError(
                f"{name}: got none, expected the inputs of both sides. Write "
                f"{name} FILE.npz or {name} shape=8,32."
            )
        found[side] = arrays
    return found["left"], found["right"]


def batch(arrays: list[np.ndarray]) -> Any:
    """Returns the only array, or a tuple of several."""
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def _has_transpose(words: list[str] | None) -> bool:
    return any(word.startswith(TRANSPOSE) for word in words or ())


def _read(
    option: str,
    words: list[str] | None,
    seed: int,
    base: list[np.ndarray] | None,
) -> list[np.ndarray] | None:
    """Reads the arrays of one option, or returns `None` without it.

    Args:
        option: its name.
        words: its values.
        seed: of random samples.
        base: the arrays whose axes `transpose=` permutes.
    """
    if words is None:
        return None
    plain = [word for word in words if not word.startswith(TRANSPOSE)]
    samples = iter(arguments.inputs_of_words(plain, seed, option))
    arrays: list[np.ndarray] = []
    for word in words:
        if word.startswith(TRANSPOSE):
            arrays.append(_transposed(option, word, len(arrays), base))
        else:
            arrays += next(samples)
    if not arrays:
        raise ValueError(
            f"{option}: got no arrays in {words}, expected one or more. Write "
            "them with `numpy.savez`."
        )
    return arrays


def _transposed(
    option: str, word: str, place: int, base: list[np.ndarray] | None
) -> np.ndarray:
    """Permutes the axes of the array at a place of other inputs."""
    if base is None or place >= len(base):
        raise ValueError(
            f"{option}: got {word!r} as array {place + 1}, expected other "
            "inputs with as many arrays. Give the array whose axes are "
            "permuted with --inputs."
        )
    axes = arguments.integers(option, word)
    array = base[place]
    if sorted(axes) != list(range(array.ndim)):
        raise ValueError(
            f"{option}: got {word!r}, expected an order of the {array.ndim} "
            f"axes of an array of shape {array.shape}. Name each axis once, "
            "from 0."
        )
    return array.transpose(axes)
