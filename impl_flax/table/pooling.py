"""Flax's pooling functions."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import lax


def _pads(x, window, stride, padding, use_ceil) -> Any:
    """Returns the padding, widened by a stride where some input is left."""
    if not use_ceil:
        return padding
    sizes = x.shape[1:-1]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(sizes, window, stride, padding)
    return [
        (lower, upper + s if (size + lower + upper - k) % s else upper)
        for size, k, s, (lower, upper) in zip(
            sizes, window, stride, padding, strict=True
        )
    ]


def avg_pool(*, window, stride, padding, use_ceil, count_include_pad, rngs):
    """Makes a function that takes the mean over windows."""
    del rngs

    def pool(x):
        pads = _pads(x, window, stride, padding, use_ceil)
        y = nnx.avg_pool(x, window, stride, pads, count_include_pad)
        return y.astype(x.dtype)  # the count is of the widest float

    return pool


def max_pool(*, window, stride, padding, use_ceil, rngs):
    """Makes a function that takes the maximum over windows."""
    del rngs

    def pool(x):
        pads = _pads(x, window, stride, padding, use_ceil)
        return nnx.max_pool(x, window, stride, pads)

    return pool


def min_pool(*, window, stride, padding, use_ceil, rngs):
    """Makes a function that takes the minimum over windows."""
    del rngs

    def pool(x):
        pads = _pads(x, window, stride, padding, use_ceil)
        return nnx.min_pool(x, window, stride, pads)

    return pool


def pool(*, window, stride, padding, use_ceil, operation, rngs):
    """Makes a function that reduces windows by an operation of `lax`."""
    del rngs
    init = {"add": 0.0, "max": -jnp.inf, "min": jnp.inf}[operation]

    def pool(x):
        pads = _pads(x, window, stride, padding, use_ceil)
        reduce = getattr(lax, operation)
        return nnx.pool(x, init, reduce, window, stride, pads)

    return pool


def _blocks(target_shape, operation):
    """Returns a function that reduces disjoint blocks, axis by axis."""

    def pool(x):
        for axis, number in enumerate(target_shape, 1):
            parts = jnp.array_split(x, number, axis)
            x = jnp.stack([operation(it, axis=axis) for it in parts], axis)
        return x

    return pool


def adaptive_avg_pool(*, target_shape, rngs):
    """Makes a function that takes the mean of blocks."""
    del rngs
    return _blocks(target_shape, jnp.mean)


def adaptive_max_pool(*, target_shape, rngs):
    """Makes a function that takes the maximum of blocks."""
    del rngs
    return _blocks(target_shape, jnp.max)


def adaptive_pool(*, target_shape, operation, rngs):
    """Makes a function that reduces blocks by one of `jax.numpy`."""
    del rngs
    return _blocks(target_shape, getattr(jnp, operation))
