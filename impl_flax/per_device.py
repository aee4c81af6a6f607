"""Batch statistics for each device: a `jax.vmap` over groups of a batch."""

from typing import Any

import jax
from flax import nnx

from common.training.parts import (
    join_groups,
    mean_over_groups,
    random_of_groups,
    random_of_whole,
    split_groups,
)


def call_in_groups(
    module: nnx.Module, xs: Any, rngs: nnx.Rngs, groups: int
) -> Any:
    """Calls a module on each group of a batch, side by side.

    Each group has its own batch statistics. The Variables of the module
    become the mean over all groups, and the random state changes as in a call
    with the whole batch.

    Args:
        module: updated in place.
        xs: the inputs of the whole batch.
        rngs: the random state of the call, updated in place.
        groups: the number of groups of consecutive examples.

    Returns:
        The predictions of the whole batch.
    """
    graphdef, random, params, others = nnx.split(
        (module, rngs), nnx.RngState, nnx.Param, ...
    )

    def call(xs, random):
        module, rngs = nnx.merge(graphdef, random, params, others, copy=True)
        pred_ys = module(xs, rngs=rngs)
        _, used, _, updated = nnx.split(
            (module, rngs), nnx.RngState, nnx.Param, ...
        )
        return pred_ys, used, updated

    pred_ys, used, updated = jax.vmap(call)(
        split_groups(xs, groups), random_of_groups(random, groups)
    )
    used = random_of_whole(jax.tree.map(lambda x: x[0], used))
    nnx.update((module, rngs), used, mean_over_groups(updated))
    return join_groups(pred_ys)
