"""`compare` finds faults planted in one backend, and where they are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common import build, compare
from common.comparison.lockstep import without_round_off, zero_round_off
from tests.comparison.faults import (
    EQUINOX,
    FLAX,
    Dialect,
    OtherGradient,
    OtherOptimizer,
    Overwrites,
    SharedMask,
    SkippedUpdate,
    StaleState,
    TransposedRule,
    TransposedWeight,
    WeakBias,
    WrongGradient,
    batch,
    respec,
    trainer,
)
from tests.conftest import exhaustive_but, one_in

STEPS = 4
MLP: dict[str, Any] = {"hidden_size": 5, "batch_norm": "standard"}
CNN: dict[str, Any] = {"channels": (2, 3)}
FAULTS: dict[str, Any] = {
    "eps": ("stateful_mlp", MLP, respec(FLAX, eps=1.1e-5), "forward", 0),
    "momentum": (
        "stateful_mlp",
        MLP,
        respec(EQUINOX, momentum=0.98),
        "buffers",
        1,
    ),
    "dialect": (
        "digits_cnn",
        CNN,
        Dialect,
        "eval",
        STEPS,
    ),
    "transposed-weight": (
        "stateful_mlp",
        MLP,
        TransposedWeight,
        "state",
        0,
    ),
    "transposed-rule": ("stateful_mlp", MLP, TransposedRule, "forward", 0),
    "stale-state": ("stateful_mlp", MLP, StaleState, "buffers", 1),
    "skipped-update": ("stateful_mlp", MLP, SkippedUpdate, "parameters", 3),
    "shared-mask": ("digits_cnn", CNN, SharedMask, "trajectory", 2),
    "dropout-rate": (
        "digits_cnn",
        CNN,
        respec(FLAX, dropout=0.26),
        "loss",
        1,
    ),
    "loss": ("stateful_mlp", MLP, OtherGradient, "loss", 1),
    "optimizer": ("stateful_mlp", MLP, OtherOptimizer, "update", 1),
}


@pytest.mark.parametrize("fault", one_in(8, FAULTS))
def test_the_first_divergence_is_where_the_fault_is(fault):
    model, hyper, faulty, quantity, step = FAULTS[fault]
    report = compare(
        build(model, backend="reference", dtype="float64", **hyper),
        trainer(model, faulty, "float64", **hyper),
        *batch(model, "float64"),
        steps=STEPS,
    )
    assert not report.ok, str(report)
    found = report.first_divergence
    assert found is not None
    assert (found.quantity, found.step) == (quantity, step), str(report)
    assert "DISAGREE" in str(report)


@pytest.mark.parametrize(
    "fault",
    exhaustive_but(
        ["momentum", "stale-state", "skipped-update", "shared-mask"],
        "stale-state",
    ),
)
def test_float32_tolerances_find_faults_too(fault):
    model, hyper, faulty, _, _ = FAULTS[fault]
    report = compare(
        build(model, backend="reference", **hyper),
        trainer(model, faulty, "float32", **hyper),
        *batch(model, "float32"),
        steps=STEPS,
    )
    assert not report.ok, str(report)


@pytest.mark.parametrize(
    "model", exhaustive_but(["stateful_mlp", "digits_cnn"], "stateful_mlp")
)
def test_without_a_fault_all_agree(model):
    """Otherwise, the tests above could pass for another reason."""
    hyper = MLP if model == "stateful_mlp" else CNN
    report = compare(
        build(model, backend="reference", dtype="float64", **hyper),
        trainer(model, FLAX, "float64", **hyper),
        *batch(model, "float64"),
        steps=STEPS,
    )
    assert report.ok, str(report)
    assert report.first_divergence is None


def test_unchanged_buffers_are_counted():
    report = compare(
        build("stateful_mlp", backend="reference", dtype="float64", **MLP),
        trainer("stateful_mlp", StaleState, "float64", **MLP),
        *batch("stateful_mlp", "float64"),
        steps=1,
    )
    (row,) = [row for row in report.rows if row.quantity == "stale"]
    assert not row.ok
    assert row.worst.error == 6  # two norms' two, and u and v
    assert row.worst.leaf.startswith("equinox.")


def test_buffers_that_both_leave_unchanged_are_found():
    """The two agree with each other, and both are wrong."""
    report = compare(
        trainer("stateful_mlp", StaleState, "float64", **MLP),
        trainer("stateful_mlp", StaleState, "float64", **MLP),
        *batch("stateful_mlp", "float64"),
        steps=2,
    )
    assert {row.quantity for row in report.rows if not row.ok} == {"stale"}


def test_buffers_that_have_converged_may_stay_the_same():
    """The "ema" of one repeated batch does not change after one step."""
    left, right = (
        build("stateful_mlp", backend=name, dtype="float64", hidden_size=5)
        for name in ("equinox", "flax")
    )
    xs, ys = batch("stateful_mlp", "float64")
    left.step(xs, ys)
    right.load(left.state())
    assert compare(left, right, xs, ys, steps=1).ok


def test_inference_that_changes_a_parameter_is_found():
    report = compare(
        build("stateful_mlp", backend="reference", dtype="float64", **MLP),
        trainer("stateful_mlp", Overwrites, "float64", **MLP),
        *batch("stateful_mlp", "float64"),
        steps=1,
    )
    (row,) = [row for row in report.rows if not row.ok]
    assert row.quantity == "overwritten"
    assert row.worst.leaf == "flax.params.linear2.weight"


def test_a_loss_that_is_not_finite_is_a_mismatch():
    xs, ys = batch("stateful_mlp", "float64")
    xs[0, 0] = np.nan
    report = compare(
        build("stateful_mlp", backend="reference", dtype="float64", **MLP),
        build("stateful_mlp", backend="flax", dtype="float64", **MLP),
        xs,
        ys,
        steps=1,
    )
    found = report.first_divergence
    assert found is not None and found.quantity == "loss"


@pytest.mark.parametrize(
    "dtype", exhaustive_but(["float32", "float64"], "float64")
)
def test_a_parameter_with_some_zero_gradients_is_judged(dtype):
    """Only the elements whose true gradient is zero are left out."""
    report = compare(
        build("stateful_mlp", backend="reference", dtype=dtype),
        trainer("stateful_mlp", WeakBias, dtype),
        *batch("stateful_mlp", dtype),
        steps=1,
    )
    found = report.first_divergence
    assert found is not None
    assert "spectral_linear.bias" in found.leaf


def test_the_first_divergence_names_the_leaf():
    report = compare(
        build("stateful_mlp", backend="reference", dtype="float64", **MLP),
        trainer("stateful_mlp", TransposedWeight, "float64", **MLP),
        *batch("stateful_mlp", "float64"),
        steps=1,
    )
    found = report.first_divergence
    assert found is not None
    assert found.leaf == "params.linear1.weight"
    assert (found.left, found.right) == ("reference", "flax")


def test_compare_does_not_change_the_trainers(assert_same):
    left, right = (
        build("stateful_mlp", backend=name, dtype="float64", **MLP)
        for name in ("equinox", "flax")
    )
    xs, ys = batch("stateful_mlp", "float64")
    left.step(xs, ys)
    right.load(left.state())
    before = left.state()
    report = compare(left, right, xs, ys, steps=2)
    assert report.ok, str(report)
    assert_same(left.state(), before)
    assert_same(right.state(), before)


def test_two_trainers_of_one_backend_can_be_compared():
    left, right = (
        build("stateful_mlp", backend="flax", dtype="float64", seed=s, **MLP)
        for s in (0, 1)
    )
    report = compare(left, right, *batch("stateful_mlp", "float64"), steps=1)
    assert report.pairs == [("flax (left)", "flax (right)")]
    found = report.first_divergence
    assert found is not None and found.quantity == "state"


def test_trainers_of_different_specs_are_refused():
    changed: dict[str, Any] = MLP | {"eps": 1e-3}
    left = build("stateful_mlp", backend="flax", **MLP)
    right = build("stateful_mlp", backend="equinox", **changed)
    with pytest.raises(ValueError, match="spec of the right.*got .*expected"):
        compare(left, right, *batch("stateful_mlp", "float32"))


def test_zero_steps_are_refused():
    left, right = (
        build("stateful_mlp", backend=name, **MLP)
        for name in ("equinox", "flax")
    )
    with pytest.raises(ValueError, match="steps: got 0, expected 1 or more"):
        compare(left, right, *batch("stateful_mlp", "float32"), steps=0)


# --- gradients --------------------------------------------------------------


def test_gradients_are_those_that_the_step_returns():
    report = compare(
        build("stateful_mlp", backend="reference", dtype="float64", **MLP),
        trainer("stateful_mlp", WrongGradient, "float64", **MLP),
        *batch("stateful_mlp", "float64"),
        steps=2,
    )
    (row,) = [row for row in report.rows if not row.ok]
    assert row.quantity == "gradients"
    assert row.first is not None
    assert (row.first.step, row.first.leaf) == (1, "linear2.weight")


def test_round_off_is_zeroed_only_where_it_may_be():
    gradients = {
        "a": jnp.array([1.0, 1e-15, 1e-3]),
        "b": jnp.array([1e-15, -1e-15]),
        "c": jnp.array([1e-15, 2.0]),
    }
    zeroed = zero_round_off(gradients, {"a", "b"})
    assert zeroed["a"].tolist() == [1.0, 0.0, 1e-3]
    assert zeroed["b"].tolist() == [0.0, 0.0]
    assert zeroed["c"].tolist() == [1e-15, 2.0]


def test_the_optimizer_keeps_its_state_structure():
    params: Any = {"a": jnp.ones(3), "b": jnp.ones(2)}
    adam = optax.adam(1e-3)
    optimizer = without_round_off(adam, {"a"})
    state = optimizer.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(adam.init(params))
    gradients: Any = {"a": jnp.array([1.0, 1e-15, 1.0]), "b": jnp.ones(2)}
    updates: Any
    updates, _ = optimizer.update(gradients, state, params)
    assert updates["a"][1] == 0 and updates["a"][0] != 0
