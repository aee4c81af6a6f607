"""A fault in each quantity of a report on models is found there first."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from common import build, compare
from common.comparison.rows import MODEL_QUANTITIES
from common.layouts import Layout
from tests.conftest import exhaustive_but

XS = np.random.default_rng(0).normal(size=(4, 2))
RULES = {
    "linear.kernel": Layout.of("linear.kernel", (2, 2)),
    "linear.bias": Layout.of("linear.bias", (2,)),
}


class Counting(nnx.Module):
    """A linear layer that knows how often it was called in training mode.

    Its outputs are doubled where `doubles(calls, train)` says so.
    """

    def __init__(self, doubles=None):
        self.linear = nnx.Linear(
            2, 2, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
        )
        self.calls = nnx.BatchStat(jnp.zeros(()))
        self.doubles = doubles

    def __call__(self, x, train: bool = False):
        if train:
            self.calls[...] += 1
        y = self.linear(x)
        if self.doubles is None:
            return y
        return jnp.where(self.doubles(self.calls[...], train), 2 * y, y)


def in_training(calls, train):
    return train


def from_the_second_step(calls, train):
    return train & (calls > 1)


def after_training(calls, train):
    return (not train) & (calls > 0)


def absolute(outputs, ys):
    return jnp.mean(jnp.abs(outputs - ys))


def watching(increment):
    """Returns an optimizer that changes its state alone after one step."""

    def init(params):
        return jnp.zeros(())

    def update(updates, state, params=None):
        return updates, state + jnp.where(state > 0, increment, 1.0)

    watch = optax.GradientTransformation(init, update)
    return optax.chain(watch, optax.sgd(0.1))


def rising(factor):
    """Returns an optimizer whose learning rate changes after one step."""
    return optax.sgd(lambda count: 0.1 * factor**count)


# The right model, and the loss and the optimizer of each side.
FAULTS = {
    "training": (in_training, {}, {}),
    "loss": (None, {}, {"loss": absolute}),
    "update": (None, {}, {"optimizer": optax.sgd(0.2)}),
    "trajectory": (from_the_second_step, {}, {}),
    "parameters": (
        None,
        {"optimizer": rising(1)},
        {"optimizer": rising(2)},
    ),
    "moments": (
        None,
        {"optimizer": watching(1.0)},
        {"optimizer": watching(2.0)},
    ),
    "eval": (after_training, {}, {}),
}
ELSEWHERE = {"state", "forward", "buffers", "gradients", "overwritten"}
"""Their faults are in `test_native.py`."""
QUICK = ("loss", "parameters", "eval")
NEVER = {"stale"}
"""Models may have buffers that training does not change; see the notes."""


def test_every_quantity_has_a_fault():
    assert MODEL_QUANTITIES.keys() == FAULTS.keys() | ELSEWHERE | NEVER


@pytest.mark.parametrize("quantity", exhaustive_but(FAULTS, *QUICK))
def test_a_fault_is_found_first_where_it_is(quantity):
    doubles, *options = FAULTS[quantity]
    left, right = (
        build(model=model, **{"loss": "mse", "optimizer": optax.sgd(0.1), **x})
        for model, x in zip(
            (Counting(), Counting(doubles)), options, strict=True
        )
    )
    report = compare(left, right, XS, XS + 1, rules=RULES, steps=2)
    found = report.first_divergence
    assert found is not None and found.quantity == quantity, str(report)
    step = {"trajectory": 2, "parameters": 2, "moments": 2, "eval": 2}
    assert found.step == step.get(quantity, 1)
