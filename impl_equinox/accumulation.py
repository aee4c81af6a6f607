"""Gradient accumulation: a scan over the parts of a batch.

The `eqx.nn.State` is the carry of the scan, like the sums: what one part
returns is what the next one starts from. `optax.MultiSteps` accumulates over
several calls instead, each of which returns to Python.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from common import part_keys
from common.training.parts import split_parts, zeros_for_sums


def over_parts(function: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """Makes a function of a batch the mean over the parts of the batch.

    Args:
        function: `(model, state, batch, key) -> results`. Among the results
            is the new `eqx.nn.State`.
        parts: the number of parts.

    Returns:
        A function of the same signature. It returns the state after the last
        part, and the mean of all other results.
    """

    def averaged(model, state, batch, key):
        def compute(state, batch, key):
            results = function(model, state, batch, key)
            return eqx.partition(results, _is_state, is_leaf=_is_state)

        def add_part(carry, part):
            state, sums = carry
            states, values = compute(state, *part)
            (state,) = jax.tree.leaves(states, is_leaf=_is_state)
            return (state, jax.tree.map(jnp.add, sums, values)), None

        xs = split_parts(batch, parts), part_keys.of_parts(key, parts)
        first = jax.tree.map(lambda x: x[0], xs)
        states, values = eqx.filter_eval_shape(compute, state, *first)
        (state, sums), _ = jax.lax.scan(
            add_part, (state, zeros_for_sums(values)), xs
        )
        means = jax.tree.map(lambda x: x / parts, sums)
        states = jax.tree.map(lambda _: state, states, is_leaf=_is_state)
        return eqx.combine(states, means, is_leaf=_is_state)

    return averaged


def _is_state(x: Any) -> bool:
    return isinstance(x, eqx.nn.State)
