"""Equinox's dropout."""

import equinox as eqx
import jax

from impl_equinox import layers
from impl_equinox.table import calls


def _with_key(layer, state, x, *, key):
    """Gives the whole batch one key, or each example its own."""
    if isinstance(layer, eqx.nn.Dropout):
        return calls.with_keys(layer, state, x, key=key)

    def one(x):
        return layer(x, key=key)

    return jax.vmap(one, axis_name="batch")(x), state


CALLS = {"dropout": _with_key}


def dropout(p, *, mask, broadcast_dims, key):
    """Makes a Dropout that draws for the batch, or for each example."""
    del key
    if mask == "example":
        return eqx.nn.Dropout(p)
    # An example's axis 0 is the batch's axis 1.
    axes = tuple(dim - 1 for dim in broadcast_dims)
    return layers.Dropout(p, axis_name="batch", broadcast_axes=axes)
