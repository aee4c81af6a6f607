"""Flax's dropout."""

from flax import nnx

from impl_flax import layers


def _with_key(layer, x, *, key):
    """Calls the layer on a batch with one key."""
    return layer(x, rngs=key)


CALLS = {"dropout": _with_key}


def dropout(p, *, mask, broadcast_dims, rngs):
    """Creates a Dropout with one mask per batch, or one per example."""
    del rngs  # keys are passed to the call
    if mask == "example":
        return layers.Dropout(p)
    return nnx.Dropout(p, broadcast_dims=broadcast_dims)
