"""Equinox's pooling layers."""

import equinox as eqx
import jax.numpy as jnp
from jax import lax

from impl_equinox.table import calls

CALLS = {
    "avg_pool": calls.channels_first,
    "max_pool": calls.channels_first,
    "min_pool": calls.channels_first,
    "pool": calls.channels_first,
    "adaptive_avg_pool": calls.channels_first,
    "adaptive_max_pool": calls.channels_first,
    "adaptive_pool": calls.channels_first,
}


def _sized(make, window, stride, padding, use_ceil):
    """Makes a layer, or one that takes "SAME" padding from the input."""
    if not isinstance(padding, str):
        return make(window, stride, padding, use_ceil)

    def pool(x):
        pads = lax.padtype_to_pads(x.shape[1:], window, stride, padding)
        return make(window, stride, pads, use_ceil)(x)

    return eqx.nn.Lambda(pool)


def avg_pool(*, window, stride, padding, use_ceil, count_include_pad, key):
    """Makes an AvgPool1d, AvgPool2d or AvgPool3d."""
    del key
    make = (eqx.nn.AvgPool1d, eqx.nn.AvgPool2d, eqx.nn.AvgPool3d)
    layer = _sized(make[len(window) - 1], window, stride, padding, use_ceil)
    if count_include_pad:
        return layer
    return eqx.nn.Lambda(lambda x: layer(x) / layer(jnp.ones_like(x)))


def max_pool(*, window, stride, padding, use_ceil, key):
    """Makes a MaxPool1d, MaxPool2d or MaxPool3d."""
    del key
    make = (eqx.nn.MaxPool1d, eqx.nn.MaxPool2d, eqx.nn.MaxPool3d)
    return _sized(make[len(window) - 1], window, stride, padding, use_ceil)


def min_pool(*, window, stride, padding, use_ceil, key):
    """Makes a Pool that takes the minimum."""
    del key

    def make(*options):
        return eqx.nn.Pool(jnp.inf, lax.min, len(window), *options)

    return _sized(make, window, stride, padding, use_ceil)


def pool(*, window, stride, padding, use_ceil, operation, key):
    """Makes a Pool with an operation of `lax`, from its identity."""
    del key
    init = {"add": 0, "max": -jnp.inf, "min": jnp.inf}[operation]

    def make(*options):
        return eqx.nn.Pool(
            init, getattr(lax, operation), len(window), *options
        )

    return _sized(make, window, stride, padding, use_ceil)


def adaptive_avg_pool(*, target_shape, key):
    """Makes an AdaptiveAvgPool1d, AdaptiveAvgPool2d or AdaptiveAvgPool3d."""
    del key
    make = (
        eqx.nn.AdaptiveAvgPool1d,
        eqx.nn.AdaptiveAvgPool2d,
        eqx.nn.AdaptiveAvgPool3d,
    )
    return make[len(target_shape) - 1](target_shape)


def adaptive_max_pool(*, target_shape, key):
    """Makes an AdaptiveMaxPool1d, AdaptiveMaxPool2d or AdaptiveMaxPool3d."""
    del key
    make = (
        eqx.nn.AdaptiveMaxPool1d,
        eqx.nn.AdaptiveMaxPool2d,
        eqx.nn.AdaptiveMaxPool3d,
    )
    return make[len(target_shape) - 1](target_shape)


def adaptive_pool(*, target_shape, operation, key):
    """Makes an AdaptivePool with a reduction of `jax.numpy`."""
    del key
    # Where sizes divide, Equinox applies it once more, to single numbers:
    # right for those that leave a number alone.
    return eqx.nn.AdaptivePool(
        target_shape, len(target_shape), getattr(jnp, operation)
    )
