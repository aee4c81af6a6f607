"""Counters, whose dtype follows JAX's default integer dtype."""

from typing import Any

import jax.numpy as jnp


def is_weak_counter(x: Any) -> bool:
    """Whether an array is an integer that was made from a Python number.

    Counting gives it JAX's default integer dtype, which is int64 if x64 is
    enabled and int32 otherwise, and an `eqx.nn.State` refuses a new dtype.
    """
    weak = getattr(x, "weak_type", False) and not x.shape
    return bool(weak) and jnp.issubdtype(x.dtype, jnp.integer)


def recast_counter(x: Any) -> Any:
    """Returns a counter in JAX's default integer dtype."""
    return jnp.array(x.item())
