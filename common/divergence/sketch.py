"""A fingerprint of an array that axis order and layout leave alone.

It is the array's sorted values, thinned to a fixed number of ranks, and its
moments, which see a change of a single value between two ranks. Its size is
bounded, however large the array is.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

RANKS = 128
# The mean of many values is known better than each; but not without end, as
# rounding errors have a common part.
CROWD = 32.0
# Numbers as large as this are those that masks put in, and say nothing of the
# magnitude of the others.
HUGE = 1e8


class Sketch(NamedTuple):
    """The fingerprint of an array.

    Attributes:
        kind: `"float"` or `"exact"` (integers, booleans, keys).
        size: the number of elements.
        nan: how many of them are NaN.
        inf: how many are infinite.
        ranks: sorted finite values, in float64, at evenly spaced ranks.
        moments: the means of x and x², but for what masks put in.
    """

    kind: str
    size: int
    nan: int
    inf: int
    ranks: np.ndarray
    moments: np.ndarray

    @property
    def constant(self) -> bool:
        """Whether all elements are one value, and so tell nothing."""
        return not len(self.ranks) or bool(self.ranks[0] == self.ranks[-1])


def numbers(x: Any) -> tuple[str, np.ndarray]:
    """Returns the kind of an array and its values as NumPy ones."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return "exact", np.asarray(jax.random.key_data(x))
    x = np.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return "float", np.stack([x.real, x.imag], -1).astype(np.float64)
    if jnp.issubdtype(x.dtype, jnp.floating):
        wide = x.dtype in (np.float32, np.float64)
        return "float", x if wide else x.astype(np.float32)
    return "exact", x


def sketch(x: Any) -> Sketch:
    """Takes the fingerprint of an array."""
    kind, values = numbers(x)
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
        at = np.linspace(0, ordered.size - 1, RANKS).round().astype(int)
        ranks = ordered[at].astype(np.float64)
    else:
        ranks = ordered.astype(np.float64)
    wide = ordered.astype(np.float64)
    usual = wide[np.abs(wide) < HUGE]
    wide = usual if usual.any() else wide
    moments = np.array([wide.sum(), np.square(wide).sum()]) / max(1, size)
    return Sketch(kind, size, nan, inf, ranks, moments)


def largest(found: Sketch) -> float:
    """Returns the largest magnitude."""
    return float(np.max(np.abs(found.ranks), initial=0.0))


def distance(left: Sketch, right: Sketch) -> float:
    """Returns how far two fingerprints are apart, over their magnitude.

    Infinite for another size or kind, for other NaNs and infinities, and for
    integers that are not the same.
    """
    if left[:4] != right[:4]:
        return np.inf
    if left.kind == "exact":
        same = np.array_equal(left.ranks, right.ranks) and np.array_equal(
            left.moments, right.moments
        )
        return 0.0 if same else np.inf
    apart = np.abs(left.ranks - right.ranks)
    scale = np.maximum(magnitudes(left.ranks), magnitudes(right.ranks))
    largest = float(np.max(apart / np.where(scale, scale, 1), initial=0.0))
    crowd = min(CROWD, left.size**0.5)
    rms = max(left.moments[1], right.moments[1]) ** 0.5 or 1.0
    means = abs(left.moments - right.moments) / (rms, rms**2)
    return max(largest, crowd * float(np.max(means)))


def magnitudes(x: np.ndarray) -> np.ndarray:
    """Returns what to measure the error of each element in.

    That is the largest magnitude of all; but a mask's numbers are measured
    in themselves.
    """
    size = np.abs(x)
    usual = size[size < HUGE]
    scale = np.max(usual, initial=0.0) or np.max(size, initial=0.0)
    return np.where(size < HUGE, scale, size)
