"""The initial distributions that the layers draw from."""

import jax.numpy as jnp
import jax.random as jr


def uniform(bound: float):
    """Draws from U(-bound, bound), in float32."""

    def init(key, shape):
        return jr.uniform(key, shape, jnp.float32, -bound, bound)

    return init


def normal(key, shape):
    """Draws from N(0, 1), in float32."""
    return jr.normal(key, shape, jnp.float32)


def constant(value, dtype):
    """Fills with a value."""
    return lambda key, shape: jnp.full(shape, value, dtype)


zeros = constant(0, jnp.float32)
ones = constant(1, jnp.float32)
