"""The error of two arrays, which the tolerances of `agreement` bound.

It is the maximum absolute difference of their elements, divided by the
largest magnitude of the arrays. This makes the tolerances independent of
scale. Dtypes, shapes, NaNs, infinities, and all values that are not floats
must be equal.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np


def relative_error(left: Any, right: Any, scale: float | None = None) -> float:
    """Returns the maximum absolute difference of two arrays over a scale.

    The error is infinite if the arrays differ in shape or dtype, in the
    places of their NaNs and infinities, or in any element of a dtype that is
    not floating-point.

    Args:
        left: an array.
        right: an array.
        scale: the divisor. By default it is the largest finite magnitude of
            the elements of both arrays.
    """
    left, right = np.asarray(left), np.asarray(right)
    if (left.shape, left.dtype) != (right.shape, right.dtype):
        return np.inf
    if not jnp.issubdtype(left.dtype, jnp.floating):
        return 0.0 if np.array_equal(left, right) else np.inf
    left, right = left.astype(np.float64), right.astype(np.float64)
    finite = np.isfinite(left) & np.isfinite(right)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        return np.inf
    left, right = left[finite], right[finite]
    largest = float(np.max(np.abs(left - right), initial=0.0))
    if largest == 0.0:
        return 0.0
    if scale is None:
        scale = max(magnitude(left), magnitude(right))
    return largest / scale if scale else np.inf


def magnitude(x: Any) -> float:
    """Returns the largest finite absolute value of an array, or 0."""
    x = np.abs(np.asarray(x, np.float64))
    return float(np.max(x[np.isfinite(x)], initial=0.0))


def relative_errors(
    left: Mapping[str, Any],
    right: Mapping[str, Any],
    scales: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Returns the relative error of each array by name.

    The error of an array that only one side has is infinite.

    Args:
        left: arrays by name.
        right: arrays by name.
        scales: the scales of `relative_error` by name, for the arrays that
            do not use the default scale.
    """
    scales = scales or {}
    return {
        name: relative_error(left[name], right[name], scales.get(name))
        if name in left and name in right
        else np.inf
        for name in [*left, *(right.keys() - left.keys())]
    }
