"""Equinox's rotary positions."""

from impl_equinox import layers


def rotary_positional_embedding(embedding_size, *, theta, key):
    """Makes a rotation that remembers nothing of other layers."""
    del key
    return layers.RotaryPositionalEmbedding(embedding_size, theta)
