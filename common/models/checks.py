"""Checks of hyper-parameters, called by the specs that have them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.errors import choose
from common.protocol import Spec


def require_positive(spec: Spec, *fields: str) -> None:
    """Checks that hyper-parameters, or all of their elements, are positive.

    Raises:
        ValueError: if one is not, naming the first.
    """
    for field in fields:
        value = getattr(spec, field)
        numbers = np.asarray(value)
        if numbers.dtype.kind not in "iuf" or not np.all(numbers > 0):
            raise ValueError(
                f"{spec.name} {field}: got {value!r}, expected a positive "
                "value. Pass a value greater than 0."
            )


def require_int(spec: Spec, *fields: str) -> None:
    """Checks that hyper-parameters are integers.

    Raises:
        ValueError: if one is not, naming the first.
    """
    for field in fields:
        value = getattr(spec, field)
        if not is_int(value):
            raise ValueError(
                f"{spec.name} {field}: got {value!r}, expected an int. "
                "Pass one such as 8, without a decimal point or quotes."
            )


def require_ints(spec: Spec, *fields: str, length: int | None = None) -> None:
    """Checks that hyper-parameters are tuples of integers.

    Args:
        spec: the spec that has the hyper-parameters.
        *fields: the names of the hyper-parameters.
        length: the required length of each tuple, by default any length.

    Raises:
        ValueError: if one is not, naming the first.
    """
    kind = "ints" if length is None else f"{length} ints"
    for field in fields:
        value = getattr(spec, field)
        is_ints = isinstance(value, tuple) and all(map(is_int, value))
        if not is_ints or length not in (None, len(value)):
            raise ValueError(
                f"{spec.name} {field}: got {value!r}, expected a tuple of "
                f"{kind}. Write it as in {field}=(8, 16)."
            )


def require_bool(spec: Spec, *fields: str) -> None:
    """Checks that hyper-parameters are true or false.

    Raises:
        ValueError: if one is not, naming the first.
    """
    for field in fields:
        value = getattr(spec, field)
        if not isinstance(value, bool):
            raise ValueError(
                f"{spec.name} {field}: got {value!r}, expected True or False. "
                "Pass one of them."
            )


def require_within(
    spec: Spec, field: str, low: float | int, high: float | int
) -> None:
    """Checks that a hyper-parameter is in the interval [low, high).

    Raises:
        ValueError: if it is not.
    """
    value = getattr(spec, field)
    if not isinstance(value, int | float) or not low <= value < high:
        raise ValueError(
            f"{spec.name} {field}: got {value!r}, expected a value in "
            f"[{low}, {high}). Pass a number from {low}, which is allowed, to "
            f"below {high}."
        )


def require_choice(spec: Spec, field: str, choices: Sequence[str]) -> None:
    """Checks that a hyper-parameter is one of the given names.

    Raises:
        ValueError: if it is not, listing the names.
    """
    value = getattr(spec, field)
    if value not in choices:
        raise choose(f"{spec.name} {field}", value, choices)


def is_int(x: Any) -> bool:
    """Returns whether a value is an `int`, and not a `bool`."""
    return isinstance(x, int) and not isinstance(x, bool)
