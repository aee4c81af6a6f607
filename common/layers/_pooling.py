"""Pooling, and the flattening behind it."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def max_pool2d(
    x: Float[Array, "B H W C"], window: int
) -> Float[Array, "B H2 W2 C"]:
    """Takes the maximum over disjoint `window` x `window` squares."""
    size = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, size, size, "VALID")


def flatten(x: Float[Array, "B H W C"]) -> Float[Array, "B F"]:
    """Flattens each example in PyTorch's order: C, then H, then W."""
    x = jnp.transpose(x, (0, 3, 1, 2))  # (B, C, H, W)
    return x.reshape(x.shape[0], -1)
