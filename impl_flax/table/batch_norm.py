"""Flax's batch normalisation."""

from impl_flax import layers
from impl_flax.table.normalisation import with_mask

CALLS = {"batch_norm": with_mask}


def batch_norm(
    features, *, dialect, momentum, eps, channelwise_affine, masked, rngs
):
    """Makes a BatchNorm that speaks a dialect."""
    del masked  # a mask is an argument of the call
    return layers.batch_norm(
        features,
        dialect,
        momentum=momentum,
        epsilon=eps,
        use_bias=channelwise_affine,
        use_scale=channelwise_affine,
        rngs=rngs,
    )
