"""Equinox's pooling layers."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from common.layers import Padding, ceil_padding, explicit_padding
from impl_equinox.table import calls
from impl_equinox.table.column import constructs

Pads = list[tuple[int, int]]


def _pads(
    x: Array,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    use_ceil: bool,
) -> tuple[Pads, Pads]:
    """Returns the padding of an input, before and after rounding up."""
    pads: Any = explicit_padding(padding, window)
    if isinstance(pads, str):
        pads = lax.padtype_to_pads(x.shape[1:], window, stride, pads)
    if not use_ceil:
        return pads, pads
    return pads, ceil_padding(pads, x.shape[1:], window, stride)


def _sized(
    make: Callable[..., eqx.Module],
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    use_ceil: bool,
) -> eqx.Module:
    """Constructs a layer, when it is called if that depends on the input."""
    pads = explicit_padding(padding, window)
    if not use_ceil and not isinstance(pads, str):
        return make(window, stride, pads)

    def pool(x: Array) -> Array:
        pads, ends = _pads(x, window, stride, padding, use_ceil)
        # Where entries are left over, `use_ceil` adds a whole stride of
        # padding, and Equinox rejects the sum if it exceeds the window.
        stock = use_ceil and all(
            upper + s <= k or (n + lower + upper - k) % s == 0
            for n, (lower, upper), k, s in zip(
                x.shape[1:], pads, window, stride, strict=True
            )
        )
        layer: Any = make(window, stride, pads if stock else ends, stock)
        return layer(x)

    return eqx.nn.Lambda(pool)


@constructs(
    "avg_pool",
    call=calls.channels_first,
    stock=("AvgPool1d", "AvgPool2d", "AvgPool3d"),
    kind="composition",
    using="AvgPool, divided by AvgPool of ones if padding is not counted",
    page="pool",
    keywords={"window": "kernel_size"},
)
def avg_pool(
    *,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    use_ceil: bool,
    count_include_pad: bool,
    key: PRNGKeyArray,
) -> eqx.Module:
    """Returns an AvgPool1d, AvgPool2d or AvgPool3d."""
    del key
    dimensions = (eqx.nn.AvgPool1d, eqx.nn.AvgPool2d, eqx.nn.AvgPool3d)
    make = dimensions[len(window) - 1]
    layer: Any = _sized(make, window, stride, padding, use_ceil)
    if not count_include_pad:
        return eqx.nn.Lambda(lambda x: layer(x) / layer(jnp.ones_like(x)))
    if not use_ceil:
        return layer

    def pool(x: Array) -> Array:
        pads, ends = _pads(x, window, stride, padding, use_ceil)
        # PyTorch counts the padding, but not what `use_ceil` adds to it.
        rest = [
            (0, end - upper)
            for (_, upper), (_, end) in zip(pads, ends, strict=True)
        ]
        layer: Any = make(window, stride, rest)
        pads = [(0, 0), *pads]
        ones = jnp.pad(jnp.ones_like(x), pads, constant_values=1)
        return layer(jnp.pad(x, pads)) / layer(ones)

    return eqx.nn.Lambda(pool)


@constructs(
    "max_pool",
    call=calls.channels_first,
    stock=("MaxPool1d", "MaxPool2d", "MaxPool3d"),
    kind="settings",
    page="pool",
    keywords={"window": "kernel_size"},
)
def max_pool(
    *,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    use_ceil: bool,
    key: PRNGKeyArray,
) -> eqx.Module:
    """Returns a MaxPool1d, MaxPool2d or MaxPool3d."""
    del key
    make = (eqx.nn.MaxPool1d, eqx.nn.MaxPool2d, eqx.nn.MaxPool3d)
    return _sized(make[len(window) - 1], window, stride, padding, use_ceil)


@constructs(
    "min_pool",
    call=calls.channels_first,
    kind="composition",
    using="eqx.nn.Pool(jnp.inf, lax.min, ...)",
)
def min_pool(
    *,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    use_ceil: bool,
    key: PRNGKeyArray,
) -> eqx.Module:
    """Returns a Pool that takes the minimum."""
    del key

    def make(*options: Any) -> eqx.nn.Pool:
        return eqx.nn.Pool(jnp.inf, lax.min, len(window), *options)

    return _sized(make, window, stride, padding, use_ceil)


@constructs(
    "pool",
    call=calls.channels_first,
    stock=("Pool",),
    kind="settings",
    page="pool",
    keywords={"window": "kernel_size"},
)
def pool(
    *,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    use_ceil: bool,
    operation: Literal["add", "max", "min"],
    key: PRNGKeyArray,
) -> eqx.Module:
    """Returns a Pool with an operation of `jax.lax` and its identity."""
    del key
    init = {"add": 0, "max": -jnp.inf, "min": jnp.inf}[operation]

    def make(*options: Any) -> eqx.nn.Pool:
        return eqx.nn.Pool(
            init, getattr(lax, operation), len(window), *options
        )

    return _sized(make, window, stride, padding, use_ceil)


@constructs(
    "adaptive_avg_pool",
    call=calls.channels_first,
    stock=("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d"),
    page="pool",
)
def adaptive_avg_pool(
    *, target_shape: tuple[int, ...], key: PRNGKeyArray
) -> eqx.nn.AdaptivePool:
    """Returns an AdaptiveAvgPool1d, 2d or 3d."""
    del key
    make = (
        eqx.nn.AdaptiveAvgPool1d,
        eqx.nn.AdaptiveAvgPool2d,
        eqx.nn.AdaptiveAvgPool3d,
    )
    return make[len(target_shape) - 1](target_shape)


@constructs(
    "adaptive_max_pool",
    call=calls.channels_first,
    stock=("AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d"),
    page="pool",
)
def adaptive_max_pool(
    *, target_shape: tuple[int, ...], key: PRNGKeyArray
) -> eqx.nn.AdaptivePool:
    """Returns an AdaptiveMaxPool1d, 2d or 3d."""
    del key
    make = (
        eqx.nn.AdaptiveMaxPool1d,
        eqx.nn.AdaptiveMaxPool2d,
        eqx.nn.AdaptiveMaxPool3d,
    )
    return make[len(target_shape) - 1](target_shape)


@constructs(
    "adaptive_pool",
    call=calls.channels_first,
    stock=("AdaptivePool",),
    page="pool",
)
def adaptive_pool(
    *,
    target_shape: tuple[int, ...],
    operation: Literal["sum", "min", "median"],
    key: PRNGKeyArray,
) -> eqx.nn.AdaptivePool:
    """Returns an AdaptivePool with a reduction of `jax.numpy`."""
    del key
    # If the sizes divide evenly, Equinox also applies the reduction to single
    # numbers, which these reductions leave unchanged.
    return eqx.nn.AdaptivePool(
        target_shape, len(target_shape), getattr(jnp, operation)
    )
