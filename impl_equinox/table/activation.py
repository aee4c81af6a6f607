"""Equinox's activations, and those of `jax.nn`."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp

from impl_equinox.table import calls

CALLS = {"prelu": calls.channels_first}

SETTINGS = {
    # Integers, whatever the dtype of the model.
    "one_hot": {"num_classes": 5, "dtype": jnp.int32},
    "logsumexp": {"axis": -1},
    # E[x^2] - E[x]^2 loses all digits where the mean is large.
    "standardize": {"algorithm": "stable"},
}


def activation(function, *, approximate, key):
    """Makes a layer of a function that both libraries take from JAX."""
    del key
    found = jnp.tanh if function == "tanh" else getattr(jax.nn, function)
    settings = SETTINGS.get(function, {})
    if function == "gelu":
        settings = {"approximate": approximate}
    return eqx.nn.Lambda(functools.partial(found, **settings))


def prelu(features, *, num_spatial_dims, key):
    """Makes a leaky relu whose slope is learned."""
    del key
    if features is None:
        return eqx.nn.PReLU(0.25)
    # Channels first: the slopes broadcast over the spatial axes.
    shape = (features, *[1] * num_spatial_dims)
    return eqx.nn.PReLU(jnp.full(shape, 0.25))
