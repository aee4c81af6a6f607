"""Gradient accumulation: a scan over the parts of a batch.

`nnx.split` takes the Variables out of the module, `jax.lax.scan` carries
them from part to part, and `nnx.merge` makes the module inside of the scan.
Flax's documentation accumulates with `optax.MultiSteps`, over several calls,
each of which returns to Python.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from common.training.parts import (
    random_of_parts,
    random_of_whole,
    split_parts,
    zeros_for_sums,
)


def over_parts(function: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """Makes a function of a batch the mean over the parts of the batch.

    Args:
        function: `(module, batch, rngs) -> values`. It may update the
            Variables of the module and the random state in place.
        parts: the number of parts.

    Returns:
        A function of the same signature. It updates the Variables as the
        parts in turn do, and the random state as one call does: every part
        draws its share of what a call with the whole batch draws.
    """

    def averaged(module, batch, rngs):
        graphdef, random, params, others = nnx.split(
            (module, rngs), nnx.RngState, nnx.Param, ...
        )

        def compute(others, batch, random):
            module, rngs = nnx.merge(
                graphdef, random, params, others, copy=True
            )
            values = function(module, batch, rngs)
            _, used, _, others = nnx.split(
                (module, rngs), nnx.RngState, nnx.Param, ...
            )
            return others, used, values

        def add_part(carry, part):
            others, _, sums = carry
            others, used, values = compute(others, *part)
            used = random_of_whole(used)
            return (others, used, jax.tree.map(jnp.add, sums, values)), None

        xs = split_parts(batch, parts), random_of_parts(random, parts)
        first = jax.tree.map(lambda x: x[0], xs)
        _, _, values = jax.eval_shape(compute, others, *first)
        (others, used, sums), _ = jax.lax.scan(
            add_part, (others, random, zeros_for_sums(values)), xs
        )
        nnx.update((module, rngs), used, others)
        return jax.tree.map(lambda x: x / parts, sums)

    return averaged
