"""Flax's batch normalization."""

from flax import nnx

from common.layers import BatchNormDialect
from impl_flax import layers
from impl_flax.table import calls
from impl_flax.table.column import constructs


@constructs(
    "batch_norm",
    call=calls.with_mask,
    stock=("BatchNorm",),
    kind="custom",
    using="BatchNorm",
    page="normalization",
    keywords={"eps": "epsilon"},
)
def batch_norm(
    features: int,
    *,
    dialect: BatchNormDialect,
    momentum: float,
    eps: float,
    channelwise_affine: bool,
    masked: bool,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Returns the BatchNorm of a dialect."""
    del masked  # the mask is an argument of the call
    return layers.batch_norm(
        features,
        dialect,
        momentum=momentum,
        epsilon=eps,
        use_bias=channelwise_affine,
        use_scale=channelwise_affine,
        rngs=rngs,
    )
