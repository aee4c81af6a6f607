"""Equinox's activation layers, and functions of `jax.nn` in a layer."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from impl_equinox.table import calls
from impl_equinox.table.column import constructs

SETTINGS = {
    # Always int32, whatever the dtype of the model.
    "one_hot": {"num_classes": 5, "dtype": jnp.int32},
    "logsumexp": {"axis": -1},
    # The default, E[x^2] - E[x]^2, cancels when the mean is large.
    "standardize": {"algorithm": "stable"},
}


@constructs(
    "activation",
    kind="composition",
    using="a function of jax.nn in eqx.nn.Lambda",
)
def activation(
    function: str, *, approximate: bool, key: PRNGKeyArray
) -> eqx.nn.Lambda:
    """Wraps a function of `jax.nn` in a layer."""
    del key
    found = jnp.tanh if function == "tanh" else getattr(jax.nn, function)
    settings = SETTINGS.get(function, {})
    if function == "gelu":
        settings = {"approximate": approximate}
    return eqx.nn.Lambda(functools.partial(found, **settings))


@constructs(
    "prelu",
    call=calls.channels_first,
    stock=("PReLU",),
    page="activations",
    keywords={"negative_slope": "init_alpha"},
)
def prelu(
    features: int | None, *, num_spatial_dims: int, key: PRNGKeyArray
) -> eqx.nn.PReLU:
    """Returns a leaky ReLU with a trainable slope."""
    del key
    if features is None:
        return eqx.nn.PReLU(0.25)
    # The channels come first, so the slopes broadcast over the axes after.
    shape = (features, *[1] * num_spatial_dims)
    return eqx.nn.PReLU(jnp.full(shape, 0.25))
