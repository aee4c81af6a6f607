"""Flax's batch normalisation."""

from impl_flax import layers


def batch_norm(features, *, dialect, momentum, eps, rngs):
    """Makes a BatchNorm that speaks a dialect."""
    return layers.batch_norm(
        features, dialect, momentum=momentum, epsilon=eps, rngs=rngs
    )
