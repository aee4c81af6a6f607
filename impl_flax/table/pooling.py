"""Flax's pooling functions."""

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array

from common.layers import (
    Padding,
    ceil_padding,
    explicit_padding,
    require_blocks,
)
from impl_flax.table.column import constructs

Pool = Callable[[Array], Array]


def _pads(
    x: Array,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    use_ceil: bool,
) -> tuple[Any, Any]:
    """Returns the padding of an input, before and after rounding up."""
    pads: Any = explicit_padding(padding, window)
    if not use_ceil:
        return pads, pads
    sizes = x.shape[1:-1]
    if isinstance(pads, str):
        pads = lax.padtype_to_pads(sizes, window, stride, pads)
    return pads, ceil_padding(pads, sizes, window, stride)


def _blocks(
    target_shape: tuple[int, ...], operation: Callable[..., Array]
) -> Pool:
    """Returns a function that reduces disjoint blocks, axis by axis."""

    def pool(x: Array) -> Array:
        require_blocks(target_shape, x.shape[1:-1])
        for axis, number in enumerate(target_shape, 1):
            parts = jnp.array_split(x, number, axis)
            x = jnp.stack([operation(part, axis=axis) for part in parts], axis)
        return x

    return pool


@constructs(
    "avg_pool",
    stock=("avg_pool",),
    kind="settings",
    page="pooling",
    keywords={"window": "window_shape", "stride": "strides"},
)
def avg_pool(
    *,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    use_ceil: bool,
    count_include_pad: bool,
    rngs: nnx.Rngs,
) -> Pool:
    """Returns a function that takes the mean over windows."""
    del rngs

    def pool(x: Array) -> Array:
        pads, ends = _pads(x, window, stride, padding, use_ceil)
        counts = count_include_pad
        if use_ceil and counts:
            # PyTorch counts the padding, but not what `use_ceil` adds to it.
            counts = False
            ends: Any = [
                (0, end - upper)
                for (_, upper), (_, end) in zip(pads, ends, strict=True)
            ]
            x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
        y = nnx.avg_pool(x, window, stride, ends, counts)
        return y.astype(x.dtype)  # nnx counts in the widest float dtype

    return pool


@constructs(
    "max_pool",
    stock=("max_pool",),
    kind="settings",
    page="pooling",
    keywords={"window": "window_shape", "stride": "strides"},
)
def max_pool(
    *,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    use_ceil: bool,
    rngs: nnx.Rngs,
) -> Pool:
    """Returns a function that takes the maximum over windows."""
    del rngs

    def pool(x: Array) -> Array:
        _, ends = _pads(x, window, stride, padding, use_ceil)
        return nnx.max_pool(x, window, stride, ends)

    return pool


@constructs("min_pool", stock=("min_pool",), kind="settings", page="pooling")
def min_pool(
    *,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    use_ceil: bool,
    rngs: nnx.Rngs,
) -> Pool:
    """Returns a function that takes the minimum over windows."""
    del rngs

    def pool(x: Array) -> Array:
        _, ends = _pads(x, window, stride, padding, use_ceil)
        return nnx.min_pool(x, window, stride, ends)

    return pool


@constructs(
    "pool",
    stock=("pool",),
    kind="settings",
    page="pooling",
    keywords={
        "window": "window_shape",
        "stride": "strides",
        "operation": "reduce_fn",
    },
)
def pool(
    *,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    use_ceil: bool,
    operation: Literal["add", "max", "min"],
    rngs: nnx.Rngs,
) -> Pool:
    """Returns a function that reduces windows by a `jax.lax` operation."""
    del rngs
    init = {"add": 0.0, "max": -jnp.inf, "min": jnp.inf}[operation]

    def pool(x: Array) -> Array:
        _, ends = _pads(x, window, stride, padding, use_ceil)
        reduce = getattr(lax, operation)
        return nnx.pool(x, init, reduce, window, stride, ends)

    return pool


@constructs(
    "adaptive_avg_pool",
    kind="composition",
    using="jnp.array_split and a reduction of each part",
)
def adaptive_avg_pool(
    *, target_shape: tuple[int, ...], rngs: nnx.Rngs
) -> Pool:
    """Returns a function that takes the mean of disjoint blocks."""
    del rngs
    return _blocks(target_shape, jnp.mean)


@constructs(
    "adaptive_max_pool",
    kind="composition",
    using="jnp.array_split and a reduction of each part",
)
def adaptive_max_pool(
    *, target_shape: tuple[int, ...], rngs: nnx.Rngs
) -> Pool:
    """Returns a function that takes the maximum of disjoint blocks."""
    del rngs
    return _blocks(target_shape, jnp.max)


@constructs(
    "adaptive_pool",
    kind="composition",
    using="jnp.array_split and a reduction of each part",
)
def adaptive_pool(
    *,
    target_shape: tuple[int, ...],
    operation: Literal["sum", "min", "median"],
    rngs: nnx.Rngs,
) -> Pool:
    """Returns a function that applies a `jax.numpy` reduction to blocks."""
    del rngs
    return _blocks(target_shape, getattr(jnp, operation))
