"""What the tests of `fit` and of its loop share."""

import weakref

import numpy as np
import pytest

from common import State, Trainer
from common.agreement import assert_close
from common.training import data as data_module
from common.training.loop import FIRST_CHUNK, Loop

BATCH = 2
SIZE = 41  # twenty steps in an epoch, more than the first chunk, and one left
STEPS = SIZE // BATCH

each_mode = pytest.mark.parametrize(
    "dispatches", [False, True], ids=["scan", "dispatch"]
)


def rows(trainer: Trainer, epoch: int, size: int, batch: int) -> np.ndarray:
    """Returns the examples of each step of an epoch."""
    key = trainer.state().rng["key"]
    order = data_module.order(key, epoch, size)
    steps = size // batch
    return order[: steps * batch].reshape(steps, batch)


LOOPS: weakref.WeakKeyDictionary[Trainer, dict[bool, Loop]] = (
    weakref.WeakKeyDictionary()
)


def use_loop(trainer: Trainer, dispatches: bool) -> Trainer:
    """Makes `fit` dispatch single steps, or not."""
    loops = LOOPS.setdefault(trainer, {})
    if dispatches not in loops:
        loops[dispatches] = Loop(trainer.pure_step, dispatches=dispatches)
    trainer._loop = loops[dispatches]
    trainer._loop._count = FIRST_CHUNK
    return trainer


def check_state(actual: State, expected: State, steps: int) -> None:
    """Asserts that two States are at one step and agree to rounding."""
    assert actual.rng.keys() == expected.rng.keys()
    for name, x in expected.rng.items():
        assert np.array_equal(actual.rng[name], x), name
    for group, quantity in (
        ("params", "parameters"),
        ("buffers", "parameters"),
        ("opt", "moments"),
    ):
        assert_close(
            getattr(actual, group),
            getattr(expected, group),
            dtype="float64",
            quantity=quantity,
            what=group,
            steps=steps,
        )
    assert actual.step == expected.step == steps
