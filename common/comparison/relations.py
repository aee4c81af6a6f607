"""Tells how the numbers of two arrays are related."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from common import agreement
from common.agreement import EPS

SMALLEST_EXAMPLES, MOST_EXAMPLES = 3, 10**7
"""With two examples, the ratio is 2, which other differences have as well."""
VARIANCE = "ratio N/(N-1)"
SPACING = 1e-3
"""How near a ratio must be to N/(N-1), in units of the distance to the next
such ratio."""
MOST_ELEMENTS, MOST_AXES = 10**6, 4
"""Larger arrays are not searched for another order of flattening."""
MIN_ELEMENTS = 3
NEAR = 16
"""Numbers in a program count as equal this much below the tolerance."""


def order(left: np.ndarray, right: np.ndarray) -> str:
    """Tells whether two arrays hold the same numbers in another order."""
    if _agrees(left.ravel(), right.ravel()):
        return "agrees after reshaping"
    if left.ndim == right.ndim and left.ndim > 1:
        for axes in itertools.permutations(range(left.ndim)):
            moved = left.transpose(axes)
            if moved.shape == right.shape and _agrees(moved, right):
                return f"agrees after transposing {axes}"
    if left.size > 1 and _agrees(
        np.sort(left.ravel()), np.sort(right.ravel())
    ):
        return _flatten_order(left, right) or "the same numbers, reordered"
    return ""


def _flatten_order(left: np.ndarray, right: np.ndarray) -> str:
    """Tells whether an axis was flattened from two or three in other orders.

    The other axes may be in any order.
    """
    if left.size > MOST_ELEMENTS or left.ndim > MOST_AXES:
        return ""
    for axes in itertools.permutations(range(left.ndim)):
        moved = left.transpose(axes)
        if moved.shape == right.shape:
            found = _flatten_one(moved, right)
            if found:
                return found
    return ""


def _flatten_one(left: np.ndarray, right: np.ndarray) -> str:
    for axis, size in enumerate(left.shape):
        for shape in _factors(size):
            parts = (*left.shape[:axis], *shape, *left.shape[axis + 1 :])
            whole = left.reshape(parts)
            for order in itertools.permutations(range(len(shape))):
                axes = [
                    *range(axis),
                    *(axis + i for i in order),
                    *range(axis + len(shape), len(parts)),
                ]
                if _agrees(whole.transpose(axes).reshape(left.shape), right):
                    return (
                        f"flattened in another order: {shape} with the axes "
                        f"{order}"
                    )
    return ""


def _factors(size: int) -> Iterator[tuple[int, ...]]:
    for a in range(2, size):
        if size % a == 0:
            yield a, size // a
            for b in range(2, size // a):
                if size // a % b == 0:
                    yield a, b, size // a // b


def constant_ratio(left: np.ndarray, right: np.ndarray) -> str:
    """Tells whether the one array is a multiple of the other."""
    if left.shape != right.shape:
        return ""
    ratio = ratio_of(left, right)
    if ratio is None:
        return ""
    return variance(1 / ratio) or f"the left is {ratio:.6g} times the right"


def variance(ratio: float) -> str:
    """Tells a ratio of N/(N-1), in either direction."""
    larger = max(ratio, 1 / ratio) if ratio > 0 else 1.0
    if not 1 < larger < math.inf:
        return ""
    n = round(larger / (larger - 1))
    if not SMALLEST_EXAMPLES <= n <= MOST_EXAMPLES:
        return ""
    if abs(larger - n / (n - 1)) > SPACING / n**2:
        return ""
    words = ["biased", "unbiased"]
    left, right = words if ratio > 1 else reversed(words)
    return (
        f"{VARIANCE} with N = {n}: {left} variance on the left against "
        f"{right} on the right"
    )


def ratio_of(left: np.ndarray, right: np.ndarray) -> float | None:
    """Returns the constant that the right was multiplied with, if any."""
    square = float(np.sum(right * right))
    if left.shape != right.shape or left.size < MIN_ELEMENTS or not square:
        return None
    ratio = float(np.sum(left * right)) / square
    same = is_close(ratio, 1.0) or not ratio
    return None if same or not _agrees(left, ratio * right) else ratio


def slope_of(left: np.ndarray, right: np.ndarray) -> float | None:
    """Returns the slope if the right is a linear function of the left."""
    if left.size < MIN_ELEMENTS:
        return None
    a, b = left.ravel() - left.mean(), right.ravel() - right.mean()
    square = float(np.sum(a * a))
    if not square:
        return None
    slope = float(np.sum(a * b)) / square
    return slope if _agrees(slope * a, b) else None


def _agrees(a: np.ndarray, b: np.ndarray) -> bool:
    tolerance = agreement.match_tolerance(_rounding(a, b))
    return agreement.relative_error(a, b) <= tolerance


def _rounding(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the machine epsilon of the numbers in two arrays."""

    def is_exact(x):
        with np.errstate(over="ignore"):
            return np.array_equal(x, x.astype(np.float32).astype(np.float64))

    return EPS["float32"] if is_exact(a) or is_exact(b) else EPS["float64"]


def is_close(a: float, b: float) -> bool:
    """Whether two numbers that stand in programs are the same."""
    tolerance = agreement.match_tolerance(EPS["float32"])
    return abs(a - b) <= tolerance * max(abs(a), abs(b)) / NEAR


def to_float(x: Any) -> np.ndarray:
    """Returns an array of any dtype as float64, on the host."""
    return np.asarray(x, np.float64)
