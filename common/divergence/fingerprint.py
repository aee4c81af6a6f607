"""Fingerprints of arrays that do not depend on the order of their axes.

A fingerprint has an array's sorted values, thinned to a fixed number of
ranks, and its moments, which reveal a change of a single value between two
ranks. Its size is bounded, however large the array is.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

RANKS = 128
# The mean of n independent values has a rounding error sqrt(n) times smaller
# than each value. The factor is limited, because rounding errors have a
# common part.
MAX_MEAN_FACTOR = 32.0
# Values as large as this come from masks, such as -1e9 in attention, and say
# nothing about the magnitude of the others.
MASK_MAGNITUDE = 1e8


class Fingerprint(NamedTuple):
    """The fingerprint of an array.

    Attributes:
        kind: `"float"` or `"exact"` (integers, booleans, keys).
        size: the number of elements.
        nan: the number of NaNs.
        inf: the number of infinities.
        ranks: sorted finite values, in float64, at evenly spaced ranks.
        moments: the means of x and x², without the values of masks.
    """

    kind: str
    size: int
    nan: int
    inf: int
    ranks: np.ndarray
    moments: np.ndarray

    @property
    def is_constant(self) -> bool:
        """Whether all elements are equal, so that matching proves little."""
        return not len(self.ranks) or bool(self.ranks[0] == self.ranks[-1])

    @property
    def magnitude(self) -> float:
        """The largest absolute value."""
        return float(np.max(np.abs(self.ranks), initial=0.0))


def comparable_values(x: Any) -> tuple[str, np.ndarray]:
    """Returns the kind of an array and its values as a NumPy array.

    Keys become their data, complex numbers their two parts, and narrow
    floats float32.
    """
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return "exact", np.asarray(jax.random.key_data(x))
    x = np.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return "float", np.stack([x.real, x.imag], -1).astype(np.float64)
    if jnp.issubdtype(x.dtype, jnp.floating):
        wide = x.dtype in (np.float32, np.float64)
        return "float", x if wide else x.astype(np.float32)
    return "exact", x


def take_fingerprint(x: Any) -> Fingerprint:
    """Computes the fingerprint of an array."""
    kind, values = comparable_values(x)
    flat = values.reshape(-1)
    size, nan, inf = flat.size, 0, 0
    if kind == "float":
        finite = np.isfinite(flat)
        if not finite.all():
            nan = int(np.isnan(flat).sum())
            inf = size - int(finite.sum()) - nan
            flat = flat[finite]
    ordered = np.sort(flat)
    if ordered.size > RANKS:
        picked = np.linspace(0, ordered.size - 1, RANKS).round().astype(int)
        ranks = ordered[picked].astype(np.float64)
    else:
        ranks = ordered.astype(np.float64)
    wide = ordered.astype(np.float64)
    usual = wide[np.abs(wide) < MASK_MAGNITUDE]
    wide = usual if usual.any() else wide
    with np.errstate(over="ignore"):  # a mask of the lowest float64 only
        sums = np.array([wide.sum(), np.square(wide).sum()])
    moments = sums / max(1, size)
    return Fingerprint(kind, size, nan, inf, ranks, moments)


def fingerprint_error(
    left: Fingerprint, right: Fingerprint, max_factor: float = MAX_MEAN_FACTOR
) -> float:
    """Returns the error between two fingerprints, relative to their scale.

    It is infinite if their sizes, kinds, or counts of NaNs and infinities
    differ, and if exact values are not equal.

    Args:
        left: one fingerprint.
        right: the other.
        max_factor: the largest factor by which errors of means count more.
    """
    if left[:4] != right[:4]:
        return np.inf
    if left.kind == "exact":
        equal = np.array_equal(left.ranks, right.ranks) and np.array_equal(
            left.moments, right.moments
        )
        return 0.0 if equal else np.inf
    scale = np.maximum(error_scales(left.ranks), error_scales(right.ranks))
    errors = np.abs(left.ranks - right.ranks) / np.where(scale, scale, 1)
    factor = min(max_factor, left.size**0.5)
    rms = max(left.moments[1], right.moments[1]) ** 0.5 or 1.0
    means = abs(left.moments - right.moments) / (rms, rms**2)
    largest = float(np.max(errors, initial=0.0))
    return max(largest, factor * float(np.max(means)))


def error_scales(x: np.ndarray) -> np.ndarray:
    """Returns the scale by which to divide the error of each element.

    The scale is the largest magnitude in the array, except that the values
    of masks are compared relative to themselves.
    """
    size = np.abs(x)
    usual = size[size < MASK_MAGNITUDE]
    scale = np.max(usual, initial=0.0) or np.max(size, initial=0.0)
    return np.where(size < MASK_MAGNITUDE, scale, size)
