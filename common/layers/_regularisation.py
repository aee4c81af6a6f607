"""Dropout."""

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray


def dropout(
    x: Float[Array, "B *S"], key: PRNGKeyArray, p: float
) -> Float[Array, "B *S"]:
    """Zeroes each element with probability `p` and scales the rest.

    One mask is drawn for the whole batch, in the axis order of `x`.

    Reference: Srivastava et al., "Dropout", JMLR 15 (2014).
    """
    keep = jr.bernoulli(key, 1 - p, x.shape)
    return jnp.where(keep, x / (1 - p), jnp.zeros_like(x))
