"""Flax's rotary positions."""

from impl_flax import layers


def rotary_positional_embedding(embedding_size, *, theta, rngs):
    """Makes a rotation, which has nothing to draw."""
    del rngs
    return layers.RotaryPositionalEmbedding(embedding_size, theta)
