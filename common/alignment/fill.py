"""Values of arrays that do not depend on the order of the axes."""

import functools

import numpy as np
from jaxtyping import Float64, UInt64

Dims = tuple[int, ...]

SCALES = (1.0, 0.6, 1.5)
"""The scale of the matrices at each symmetric point.

A unit that is dead or saturated at one of them is likely alive at another.
"""

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def dims_of(shape: Dims) -> Dims:
    """Returns the sorted sizes of the axes, without those of size 1.

    Arrays with the same sizes are of one class: each could be another one
    with its axes in another order.
    """
    return tuple(sorted(size for size in shape if size != 1))


def symmetric(shape: Dims, point: int = 0) -> Float64[np.ndarray, "..."]:
    """Returns values that depend on an element's sorted index alone.

    Permuting the axes of the result gives the result for the permuted shape.
    Vectors have values around 1, so that they can be variances. Arrays of
    more axes have values around 0, of the scale of initial weights.

    Args:
        shape: the shape of the array.
        point: the number of the symmetric point, from 0.
    """
    dims = dims_of(shape)
    order = np.argsort([n for n in shape if n != 1], kind="stable")
    values = _sorted_values(dims, point)
    return values.transpose(np.argsort(order)).reshape(shape)


@functools.lru_cache(maxsize=64)
def _sorted_values(dims: Dims, point: int) -> Float64[np.ndarray, "..."]:
    """Returns the values of an array whose sizes are sorted."""
    if not dims:
        return np.asarray(1.0 + 0.2 * (point + 1))
    labels = _mix(np.arange(max(dims), dtype=np.uint64) + _INCREMENT)
    total = np.asarray(_seed(dims, point))
    for axis, size in enumerate(dims):
        shape = (1,) * axis + (size,) + (1,) * (len(dims) - axis - 1)
        total = total + labels[:size].reshape(shape)
    uniform = _mix(total).astype(np.float64) * 2.0**-63 - 1
    if len(dims) == 1:
        return 1 + 0.5 * uniform
    spread = (3 * max(dims) / np.prod(dims, dtype=float)) ** 0.5
    return uniform * (spread * SCALES[point % len(SCALES)])


def _seed(dims: Dims, point: int) -> np.uint64:
    return np.uint64(1234567 + 7919 * point + 104729 * len(dims))


def _mix(x: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """Scrambles the bits of numbers: the finalizer of SplitMix64."""
    x = x ^ (x >> np.uint64(30))
    x = x * _FACTORS[0]
    x = x ^ (x >> np.uint64(27))
    x = x * _FACTORS[1]
    return x ^ (x >> np.uint64(31))


def shuffled(
    values: Float64[np.ndarray, "..."], rng: np.random.Generator
) -> Float64[np.ndarray, "..."]:
    """Returns the same values in a random order, slightly rescaled."""
    mixed = rng.permutation(values.reshape(-1)).reshape(values.shape)
    return np.asarray(mixed * rng.uniform(0.8, 1.2))


def random_like(
    values: Float64[np.ndarray, "..."], rng: np.random.Generator
) -> Float64[np.ndarray, "..."]:
    """Returns random values of the scale of symmetric ones."""
    if len(dims_of(values.shape)) <= 1:
        return np.asarray(rng.uniform(0.5, 1.5, values.shape))
    return rng.standard_normal(values.shape) * (values.std() or 1.0)
