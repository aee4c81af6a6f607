"""Flax's layers that normalize one example at a time.

`use_fast_variance` is off, because E[x^2] - E[x]^2 cancels when the mean is
large.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx

from impl_flax import layers
from impl_flax.table import calls
from impl_flax.table.column import constructs


@constructs(
    "layer_norm",
    call=calls.with_mask,
    stock=("LayerNorm",),
    kind="settings",
    page="normalization",
    keywords={"eps": "epsilon", "use_weight": "use_scale"},
)
def layer_norm(
    shape: tuple[int, ...],
    *,
    eps: float,
    use_weight: bool,
    use_bias: bool,
    masked: bool,
    rngs: nnx.Rngs,
) -> nnx.LayerNorm:
    """Returns a LayerNorm over all axes of an example."""
    del masked  # the mask is an argument of the call
    axes = tuple(range(-len(shape), 0))
    return nnx.LayerNorm(
        math.prod(shape),
        epsilon=eps,
        use_scale=use_weight,
        use_bias=use_bias,
        # Parameters have the shape of an example; Flax would flatten them.
        scale_init=lambda key, flat, dtype: jnp.ones(shape, dtype),
        bias_init=lambda key, flat, dtype: jnp.zeros(shape, dtype),
        reduction_axes=axes,
        feature_axes=axes,
        use_fast_variance=False,
        rngs=rngs,
    )


@constructs(
    "rms_norm",
    stock=("RMSNorm",),
    kind="custom",
    using="RMSNorm",
    page="normalization",
    keywords={"eps": "epsilon", "use_weight": "use_scale"},
)
def rms_norm(
    shape: tuple[int, ...],
    *,
    eps: float,
    use_weight: bool,
    use_bias: bool,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Returns an RMSNorm over all axes of an example."""
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


@constructs(
    "group_norm",
    stock=("GroupNorm",),
    kind="settings",
    page="normalization",
    keywords={
        "groups": "num_groups",
        "channels": "num_features",
        "eps": "epsilon",
    },
)
def group_norm(
    groups: int,
    channels: int,
    *,
    eps: float,
    channelwise_affine: bool,
    rngs: nnx.Rngs,
) -> nnx.GroupNorm:
    """Returns a GroupNorm over groups of channels."""
    return nnx.GroupNorm(
        channels,
        groups,
        epsilon=eps,
        use_scale=channelwise_affine,
        use_bias=channelwise_affine,
        use_fast_variance=False,
        rngs=rngs,
    )


@constructs(
    "instance_norm",
    stock=("InstanceNorm",),
    kind="settings",
    page="normalization",
)
def instance_norm(
    channels: int, *, eps: float, channelwise_affine: bool, rngs: nnx.Rngs
) -> nnx.InstanceNorm:
    """Returns an InstanceNorm."""
    return nnx.InstanceNorm(
        channels,
        epsilon=eps,
        use_scale=channelwise_affine,
        use_bias=channelwise_affine,
        use_fast_variance=False,
        rngs=rngs,
    )
