"""The initial distributions of the layers' parameters and buffers.

Equal distributions are one function, so that the arrays of equal layers can be
drawn together.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

Init = Callable[[PRNGKeyArray, tuple[int, ...]], Array]


@functools.cache
def uniform(bound: float) -> Init:
    """Draws from U(-bound, bound), in float32."""

    def init(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
        return jr.uniform(key, shape, jnp.float32, -bound, bound)

    return init


def normal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
    """Draws from N(0, 1), in float32."""
    return jr.normal(key, shape, jnp.float32)


@functools.cache
def constant(value: bool | int | float, dtype: Any) -> Init:
    """Fills an array with one value."""
    return lambda key, shape: jnp.full(shape, value, dtype)


zeros = constant(0, jnp.float32)
ones = constant(1, jnp.float32)
