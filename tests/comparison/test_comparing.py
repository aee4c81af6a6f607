"""Models whose batch norms keep their statistics in other dialects."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from common import assert_equivalent, compare
from common.porting import port

XS = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
RULES = "norm -> bn"
LEFT_OUT = {
    "resume": {"forward", "eval"},
    "serve": {"buffers", "eval"},
    "fresh": {"eval"},
}


class Module(nnx.Module):
    def __init__(self, momentum=0.9):
        self.bn = nnx.BatchNorm(
            2, momentum=momentum, epsilon=1e-5, rngs=nnx.Rngs(0)
        )

    def __call__(self, x):
        return self.bn(x)


class Model(eqx.Module):
    norm: eqx.nn.BatchNorm

    def __init__(self):
        self.norm = eqx.nn.BatchNorm(
            2, "batch", mode="batch", momentum=0.9, eps=1e-5
        )

    def __call__(self, x, state):
        return self.norm(x, state)


def left(steps):
    """Returns a model that was trained, as in float32, and its state."""
    with jax.enable_x64(False):
        model, state = eqx.nn.make_with_state(Model)()
        for _ in range(steps):
            _, state = jax.vmap(
                model, (0, None), (0, None), axis_name="batch"
            )(jnp.asarray(XS), state)
    return model, state


@pytest.mark.parametrize(
    ("steps", "choice"), [(3, "resume"), (3, "serve"), (0, "resume")]
)
def test_models_are_equivalent_after_port(steps, choice):
    source = left(steps)
    target = port(source, Module(), rules=RULES, batch_norm=choice)
    options = {"rules": RULES, "batch_norm": choice, "steps": 2}
    report = assert_equivalent(source, target, XS, **options)
    left_out = LEFT_OUT[choice if steps else "fresh"]
    quantities = {
        row.quantity
        for row in report.rows
        if row.worst.leaf or row.worst.error
    }
    shown = {row.quantity for row in report.rows}
    assert shown.isdisjoint(left_out - {"buffers"})
    assert {"forward", "training", "gradients"} - left_out <= shown
    assert ("buffers" in quantities) == ("buffers" not in left_out)
    (note,) = (note for note in report.notes if "left out" in note)
    assert "`1 - momentum**counter`" in note


def test_another_momentum_is_still_found():
    source = left(0)
    target = port(source, Module(0.8), rules=RULES)
    report = compare(source, target, XS, rules=RULES, steps=1)
    assert report.first_divergence is not None
    assert report.first_divergence.quantity == "buffers"


@pytest.mark.parametrize("rules", [{"rules": RULES}, {}], ids=["rules", ""])
def test_the_counter_of_a_model_that_was_not_ported_is_set(rules):
    """Its own counter would divide the statistics after a step."""
    source, target = Module(), left(2)
    report = compare(source, target, XS, steps=2, carry=True, **rules)
    assert report.ok, str(report)
    assert any("set on the right" in note for note in report.notes)
    if rules:  # the right's own counter is judged
        report = compare(source, target, XS, steps=1, **rules)
        assert not report.ok
        assert not any("set on the right" in note for note in report.notes)


def test_a_choice_is_needed_and_checked():
    source, target = left(3), Module()
    with pytest.raises(ValueError, match="Pass batch_norm='serve'"):
        compare(source, target, XS, rules=RULES)
    for rules in (None, RULES):
        with pytest.raises(ValueError, match="batch_norm: got 'train'"):
            compare(source, target, XS, rules=rules, batch_norm="train")
