"""Flax's activation functions and layers."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from common.layers import ACTIVATIONS
from impl_flax.table.column import constructs

SETTINGS = {
    # Always int32, whatever the dtype of the model.
    "one_hot": {"num_classes": 5, "dtype": jnp.int32},
    "logsumexp": {"axis": -1},
    # The default, E[x^2] - E[x]^2, cancels when the mean is large.
    "standardize": {"algorithm": "stable"},
}


@constructs(
    "activation", stock=tuple(ACTIVATIONS), kind="settings", page="activations"
)
def activation(
    function: str, *, approximate: bool, rngs: nnx.Rngs
) -> Callable[..., Array]:
    """Returns an activation function of `flax.nnx`."""
    del rngs
    settings = SETTINGS.get(function, {})
    if function == "gelu":
        settings = {"approximate": approximate}
    return functools.partial(getattr(nnx, function), **settings)


@constructs(
    "prelu",
    stock=("PReLU",),
    kind="settings",
    page="activations",
    keywords={"negative_slope": "negative_slope_init"},
)
def prelu(
    features: int | None, *, num_spatial_dims: int, rngs: nnx.Rngs
) -> nnx.PReLU:
    """Returns a leaky ReLU with a trainable slope."""
    del num_spatial_dims, rngs
    layer = nnx.PReLU(0.25)
    if features is not None:
        # The channels come last, so one slope per channel broadcasts.
        layer.negative_slope = nnx.Param(jnp.full(features, 0.25))
    return layer
