"""Checks that specs make of their own hyper-parameters."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.errors import choose
from common.protocol import Spec


def require_positive(spec: Spec, *fields: str) -> None:
    """Checks that hyper-parameters (or all their elements) are positive.

    Raises:
        ValueError: naming the first that is not.
    """
    for field in fields:
        value = getattr(spec, field)
        numbers = np.asarray(value)
        if numbers.dtype.kind not in "iuf" or not np.all(numbers > 0):
            raise ValueError(
                f"{spec.name} {field}: got {value!r}, expected a positive "
                "value. Raise it."
            )


def require_int(spec: Spec, *fields: str) -> None:
    """Checks that hyper-parameters are integers.

    Raises:
        ValueError: naming the first that is not.
    """
    for field in fields:
        value = getattr(spec, field)
        if not is_int(value):
            raise ValueError(
                f"{spec.name} {field}: got {value!r}, expected an int. "
                "Pass a whole number."
            )


def require_ints(spec: Spec, *fields: str, length: int | None = None) -> None:
    """Checks that hyper-parameters are tuples of integers.

    Args:
        spec: whose hyper-parameters they are.
        *fields: their names.
        length: how many integers each must hold, if that is fixed.

    Raises:
        ValueError: naming the first that is not.
    """
    many = "some" if length is None else str(length)
    for field in fields:
        value = getattr(spec, field)
        fits = isinstance(value, tuple) and all(map(is_int, value))
        if not fits or length not in (None, len(value)):
            raise ValueError(
                f"{spec.name} {field}: got {value!r}, expected a tuple of "
                f"{many} ints. Pass whole numbers."
            )


def require_within(
    spec: Spec, field: str, low: float | int, high: float | int
) -> None:
    """Checks that a hyper-parameter lies in [low, high).

    Raises:
        ValueError: naming it.
    """
    value = getattr(spec, field)
    if not isinstance(value, int | float) or not low <= value < high:
        raise ValueError(
            f"{spec.name} {field}: got {value!r}, expected a value in "
            f"[{low}, {high}). Move it into this range."
        )


def require_choice(spec: Spec, field: str, choices: Sequence[str]) -> None:
    """Checks that a hyper-parameter is one of some names.

    Raises:
        ValueError: naming it, and the names.
    """
    value = getattr(spec, field)
    if value not in choices:
        raise choose(f"{spec.name} {field}", value, choices)


def is_int(x: Any) -> bool:
    """Returns whether a value is an `int`; a `bool` is not."""
    return isinstance(x, int) and not isinstance(x, bool)
