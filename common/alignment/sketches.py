"""Sketches of gradients: short vectors that tell arrays apart.

A sketch of an array of up to `SAMPLES` elements has all of them. That of a
larger array has samples, and random projections, which also see an array of
which few elements are not zero. Sketches are linear in the array.
"""

import functools
import itertools

import numpy as np
from jaxtyping import Float64, Int64

from common.alignment.fill import Dims, dims_of

SAMPLES = 384
PROJECTIONS = 16

Order = tuple[int, ...]


@functools.lru_cache(maxsize=1024)
def sorting_orders(shape: Dims) -> tuple[Order, ...]:
    """Returns the orders in which the axes have sorted sizes.

    Args:
        shape: without sizes of 1.
    """
    dims = tuple(sorted(shape))
    return tuple(
        order
        for order in itertools.permutations(range(len(shape)))
        if tuple(shape[axis] for axis in order) == dims
    )


def order_between(left: Order, right: Order) -> Order:
    """Returns the order that leads from one array to another.

    Args:
        left: an order of the axes of the left array.
        right: the order of the axes of the right array in which it equals
            the left array in its order.
    """
    return tuple(left[right.index(axis)] for axis in range(len(right)))


def sketch(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "orders n"]:
    """Returns a sketch for each order in which the axes have sorted sizes."""
    x = x.reshape([size for size in x.shape if size != 1])
    return np.stack(
        [_sketch_sorted(x.transpose(o)) for o in sorting_orders(x.shape)]
    )


def _sketch_sorted(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, " n"]:
    if x.size <= SAMPLES:
        return x.reshape(-1)
    indices, vectors = _plan(dims_of(x.shape))
    projected = x.reshape(-1, x.shape[-1]) @ vectors[-1]
    for size, weights in zip(x.shape[-2::-1], vectors[-2::-1], strict=True):
        projected = projected.reshape(-1, size, PROJECTIONS)
        projected = (projected * weights).sum(axis=1)
    projected = projected.reshape(-1) / x.size**0.5
    return np.concatenate([x[tuple(indices)], projected])


@functools.lru_cache(maxsize=256)
def _plan(
    dims: Dims,
) -> tuple[list[Int64[np.ndarray, " n"]], list[Float64[np.ndarray, "m p"]]]:
    """Returns the samples of a class of arrays, and the projections."""
    rng = np.random.default_rng(len(dims))
    indices = [rng.integers(0, size, SAMPLES - PROJECTIONS) for size in dims]
    vectors = [rng.standard_normal((size, PROJECTIONS)) for size in dims]
    return indices, vectors
