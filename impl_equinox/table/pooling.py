"""Equinox's pooling layers."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from common.layers import Padding
from impl_equinox.table import calls
from impl_equinox.table.column import constructs


def _sized(
    make: Callable[..., eqx.Module],
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    use_ceil: bool,
) -> eqx.Module:
    """Constructs a layer; a named padding is resolved when it is called."""
    if not isinstance(padding, str):
        return make(window, stride, padding, use_ceil)

    def pool(x: Array) -> Array:
        pads = lax.padtype_to_pads(x.shape[1:], window, stride, padding)
        layer: Any = make(window, stride, pads, use_ceil)
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
    make = (eqx.nn.AvgPool1d, eqx.nn.AvgPool2d, eqx.nn.AvgPool3d)
    layer: Any = _sized(
        make[len(window) - 1], window, stride, padding, use_ceil
    )
    if count_include_pad:
        return layer
    return eqx.nn.Lambda(lambda x: layer(x) / layer(jnp.ones_like(x)))


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
