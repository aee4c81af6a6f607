"""Where one training step of two trainers parts."""

from typing import Any

import jax
import numpy as np

from common.comparison.functions import diff
from common.divergence import Diff
from common.training.trainer import Trainer


def diff_steps(left: Trainer, right: Trainer, xs: Any, ys: Any) -> Diff:
    """Takes one step in both, from the State of the left, and compares all.

    The new parameters, buffers, moments and metrics are outputs by canonical
    name, so a fault of the backward pass or of an update is found like one of
    the forward pass. Neither trainer moves.

    Args:
        left: a trainer.
        right: a trainer whose State has the same names.
        xs: a batch of inputs.
        ys: as many targets.

    Raises:
        StateError: if the right one cannot take the State of the left.
        BatchError: if the batch does not fit.
    """
    state = left.state()
    state.require_like(right.state())
    for trainer in (left, right):
        trainer.check(xs, ys, training=True)
    arrays = {name: np.asarray(x) for name, x in state.flat().items()}
    with jax.enable_x64(left.dtype == "float64"):
        return diff(
            left.pure_transition,
            right.pure_transition,
            arrays,
            (xs, ys),
            dtype=None,
        )
