"""Batch statistics for each device: a `jax.vmap` over groups of a batch."""

from collections.abc import Callable
from typing import Any

import jax

from common import part_keys
from common.training.parts import join_groups, mean_over_groups, split_groups


def over_groups(
    batch_model: Callable[..., Any], groups: int
) -> Callable[..., Any]:
    """Makes a model compute its batch statistics in groups.

    The inner `vmap`, of `batch_model`, has the axis name over which BatchNorm
    computes its statistics. Here there is none, so each group has its own.

    Args:
        batch_model: `(xs, state, key) -> (pred_ys, state)`, on a batch.
        groups: the number of groups of consecutive examples.

    Returns:
        A function of the same signature. It returns the mean of the states of
        all groups.
    """

    def call(xs, state, key):
        pred_ys, states = jax.vmap(batch_model, in_axes=(0, None, 0))(
            split_groups(xs, groups),
            state,
            part_keys.of_groups(key, groups),
        )
        return join_groups(pred_ys), mean_over_groups(states)

    return call
