"""Activation functions."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def relu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Computes `max(x, 0)`, with gradient 0 at 0; NaN stays NaN."""
    return jnp.where(x <= 0, jnp.zeros_like(x), x)
