"""The error between two values of two programs."""

import numpy as np

from common.divergence.fingerprint import (
    comparable_values,
    error_scales,
    fingerprint_error,
)
from common.divergence.matching import equal_within, find_axis_order
from common.divergence.record import Node


def error_between(left: Node, right: Node) -> float:
    """Returns the largest absolute error over the largest magnitude.

    Values of different shapes, and those that were not kept, are compared in
    sorted order.
    """
    if left.value is not None and right.value is not None:
        (_, a), (_, b) = map(comparable_values, (left.value, right.value))
        if a.shape == b.shape:
            return largest_error(a, b)
    one, other = left.fingerprint, right.fingerprint
    if one[:4] != other[:4] or one.kind == "exact":
        return fingerprint_error(one, other)
    return largest_error(one.ranks, other.ranks)


def largest_error(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the largest error of the finite elements of two arrays."""
    if a.dtype.kind in "biu" or b.dtype.kind in "biu":
        return 0.0 if np.array_equal(a, b) else np.inf
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    scale = np.maximum(error_scales(a), error_scales(b))
    errors = np.abs(a - b) / np.where(scale, scale, 1)
    return float(np.max(errors, initial=0.0))


def are_equal(left: Node, right: Node, allowed: float) -> bool:
    """Whether two outputs are equal, up to the order of axes if it differs.

    Args:
        left: the output of the left program.
        right: the output of the right program.
        allowed: the largest error of equal values.
    """
    if left.value is not None and right.value is not None:
        (_, a), (_, b) = map(comparable_values, (left.value, right.value))
        if a.shape == b.shape:
            return equal_within(a, b, allowed)
        if fingerprint_error(left.fingerprint, right.fingerprint) > allowed:
            return False
        return find_axis_order(a, b, allowed) is not None
    return fingerprint_error(left.fingerprint, right.fingerprint) <= allowed
