"""Flax's activations."""

import functools

import jax.numpy as jnp
from flax import nnx

SETTINGS = {
    # Integers, whatever the dtype of the model.
    "one_hot": {"num_classes": 5, "dtype": jnp.int32},
    "logsumexp": {"axis": -1},
    # E[x^2] - E[x]^2 loses all digits where the mean is large.
    "standardize": {"algorithm": "stable"},
}


def activation(function, *, approximate, rngs):
    """Returns a function that both libraries take from JAX."""
    del rngs
    settings = SETTINGS.get(function, {})
    if function == "gelu":
        settings = {"approximate": approximate}
    return functools.partial(getattr(nnx, function), **settings)


def prelu(features, *, num_spatial_dims, rngs):
    """Makes a leaky relu whose slope is learned."""
    del num_spatial_dims, rngs
    layer = nnx.PReLU(0.25)
    if features is not None:
        # Channels last: one slope a channel broadcasts as it is.
        layer.negative_slope = nnx.Param(jnp.full(features, 0.25))
    return layer
