"""Flax's dropout."""

from flax import nnx

from impl_flax.table import calls


def _with_key(layer, x, *, key):
    """Gives the whole batch one key, or each example its own."""
    if layer.rng_collection == "example":
        return calls.with_keys(layer, x, key=key)
    return layer(x, rngs=key)


CALLS = {"dropout": _with_key}


def dropout(p, *, mask, broadcast_dims, rngs):
    """Makes a Dropout that draws for the batch, or for each example."""
    del rngs  # keys are passed to the call
    return nnx.Dropout(
        p,
        broadcast_dims=broadcast_dims,
        # The layer is the same: its stream's name tells which keys it gets.
        rng_collection="example" if mask == "example" else "dropout",
    )
