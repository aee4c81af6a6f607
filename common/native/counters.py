"""Counters, whose dtype is the default integer of the moment."""

from typing import Any

import jax.numpy as jnp


def is_weak_counter(x: Any) -> bool:
    """Tells an integer that was made from a Python number.

    Counting makes its dtype the default integer of the moment, which is
    another one in float64, and an `eqx.nn.State` lets no dtype change.
    """
    weak = getattr(x, "weak_type", False) and not x.shape
    return bool(weak) and jnp.issubdtype(x.dtype, jnp.integer)


def recast_counter(x: Any) -> Any:
    """Returns a counter in the default integer of the moment."""
    return jnp.array(x.item())
