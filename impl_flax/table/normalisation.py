"""Flax's normalisation of one example.

`use_fast_variance` is off throughout: E[x^2] - E[x]^2 loses all digits where
the mean is large.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx

from impl_flax import layers


def layer_norm(shape, *, eps, use_weight, use_bias, masked, rngs):
    """Makes a LayerNorm over all axes of an example."""
    del masked  # a mask is an argument of the call
    axes = tuple(range(-len(shape), 0))
    return nnx.LayerNorm(
        math.prod(shape),
        epsilon=eps,
        use_scale=use_weight,
        use_bias=use_bias,
        # In the shape of an example, where Flax would have them flat.
        scale_init=lambda key, flat, dtype: jnp.ones(shape, dtype),
        bias_init=lambda key, flat, dtype: jnp.zeros(shape, dtype),
        reduction_axes=axes,
        feature_axes=axes,
        use_fast_variance=False,
        rngs=rngs,
    )


def rms_norm(shape, *, eps, use_weight, use_bias, rngs):
    """Makes an RMSNorm over all axes of an example."""
    axes = tuple(range(-len(shape), 0))
    options: dict[str, Any] = {
        "epsilon": eps,
        "use_scale": use_weight,
        "scale_init": lambda key, flat, dtype: jnp.ones(shape, dtype),
        "reduction_axes": axes,
        "feature_axes": axes,
        "rngs": rngs,
    }
    if not use_bias:
        return nnx.RMSNorm(math.prod(shape), **options)
    return layers.RMSNorm(
        math.prod(shape),
        bias_init=lambda key, flat, dtype: jnp.zeros(shape, dtype),
        **options,
    )


def group_norm(groups, channels, *, eps, channelwise_affine, rngs):
    """Makes a GroupNorm over groups of channels."""
    return nnx.GroupNorm(
        channels,
        groups,
        epsilon=eps,
        use_scale=channelwise_affine,
        use_bias=channelwise_affine,
        use_fast_variance=False,
        rngs=rngs,
    )


def instance_norm(channels, *, eps, channelwise_affine, rngs):
    """Makes an InstanceNorm."""
    return nnx.InstanceNorm(
        channels,
        epsilon=eps,
        use_scale=channelwise_affine,
        use_bias=channelwise_affine,
        use_fast_variance=False,
        rngs=rngs,
    )


def with_mask(layer: Any, x: Any, *mask: Any, key: Any) -> Any:
    """Hands the mask over, if there is one."""
    del key
    return layer(x, mask=mask[0]) if mask else layer(x)


CALLS = {"layer_norm": with_mask}
