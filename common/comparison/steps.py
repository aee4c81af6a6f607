"""`diff_steps`: finds where one training step of two trainers diverges."""

from typing import Any

import jax
import numpy as np

from common.comparison.functions import diff
from common.divergence import Diff
from common.training.trainer import Trainer


def diff_steps(left: Trainer, right: Trainer, xs: Any, ys: Any) -> Diff:
    """Runs `diff` on one training step of two trainers.

    Both steps start from the State of the left trainer. Their outputs are the
    new State and the metrics by canonical name, so a divergence of the
    backward pass or of the update is found like one of the forward pass. The
    trainers themselves do not change.

    Args:
        left: a trainer.
        right: a trainer whose State has the same names.
        xs: a batch of inputs.
        ys: the targets, one for each input.

    Returns:
        What `diff` returns for the two steps.

    Raises:
        StateError: if the right trainer cannot load the State of the left
            one.
        BatchError: if the batch does not fit the model.
    """
    state = left.state()
    state.require_like(right.state())
    for trainer in (left, right):
        trainer.check_batch(xs, ys)
    arrays = {name: np.asarray(x) for name, x in state.flat().items()}
    with jax.enable_x64(left.dtype == "float64"):
        return diff(
            left.pure_transition,
            right.pure_transition,
            arrays,
            (xs, ys),
            dtype=None,
        )
