"""Flax's linear layers."""

from flax import nnx


def linear(in_features, out_features, *, use_bias, rngs):
    """Makes an affine map of the last axis."""
    return nnx.Linear(in_features, out_features, use_bias=use_bias, rngs=rngs)
