"""Faults planted in one backend: `compare` must see them, and say where."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common import Trainer, build, compare
from common.registry import find_backend

STEPS = 4
FLAX: Any = find_backend("flax")
EQUINOX: Any = find_backend("equinox")


def respec(backend: Any, **changes: Any) -> Any:
    """A backend that builds another model than it is told to."""

    class Faulty(backend):
        def __init__(self, spec, *rest):
            super().__init__(dataclasses.replace(spec, **changes), *rest)

    return Faulty


class TransposedWeight(FLAX):
    def init(self, params, buffers, key):
        weight = params["linear1.weight"].T
        return super().init(params | {"linear1.weight": weight}, buffers, key)


class TransposedRule(FLAX):
    """Transposes where it should not, but the same way in and out."""

    def predict(self, native, xs):
        state = self.state(native)
        weight = state.params["linear1.weight"].T
        params = {**state.params, "linear1.weight": weight}
        native = self.load(native, dataclasses.replace(state, params=params))
        return super().predict(native, xs)


class StaleState(EQUINOX):
    """Forgets what the statistics became."""

    def step(self, native, batch):
        new, metrics = super().step(native, batch)
        return new._replace(state=native.state), metrics


class SkippedUpdate(EQUINOX):
    """Leaves out every third update of the parameters."""

    def step(self, native, batch):
        new, metrics = super().step(native, batch)
        skip = native.step % 3 == 2
        leaves, treedef = jax.tree.flatten(new.model)
        kept = [
            jnp.where(skip, old, x) if isinstance(x, jax.Array) else x
            for old, x in zip(
                jax.tree.leaves(native.model), leaves, strict=True
            )
        ]
        return new._replace(model=jax.tree.unflatten(treedef, kept)), metrics


class SharedMask(EQUINOX):
    """Draws the same dropout mask at every step."""

    def step(self, native, batch):
        new, metrics = super().step(
            native._replace(step=jnp.zeros_like(native.step)), batch
        )
        return new._replace(step=native.step + 1), metrics


class Dialect(FLAX):
    """Divides the running statistics at inference, as Equinox does."""

    def predict(self, native, xs):
        state = self.state(native)
        debias = jnp.where(state.step == 0, 1, 1 - 0.9**state.step)
        buffers = {k: x / debias for k, x in state.buffers.items()}
        state = dataclasses.replace(state, buffers=buffers)
        return super().predict(self.load(native, state), xs)


class OtherGradient(FLAX):
    """Trains on twice the loss."""

    def __init__(self, spec, optimizer, loss, metrics):
        super().__init__(spec, optimizer, lambda p, y: 2 * loss(p, y), metrics)


class OtherOptimizer(FLAX):
    """Takes steps that are a thousandth too long."""

    def __init__(self, spec, optimizer, *rest):
        def update(updates, state, params=None):
            updates, state = optimizer.update(updates, state, params)
            return jax.tree.map(lambda x: 1.001 * x, updates), state

        longer = optax.GradientTransformation(optimizer.init, update)
        super().__init__(spec, longer, *rest)


def trainer(model: str, backend: Any, dtype: str, **hyper: Any) -> Trainer:
    sound = build(model, backend="reference", dtype=dtype, **hyper)
    return Trainer(
        sound.spec,
        backend,
        optimizer=sound.optimizer,
        loss=sound.backend.loss,
        metrics={},
        seed=0,
        dtype=dtype,
    )


def batch(model: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    if model == "digits_cnn":
        xs = rng.normal(size=(8, 8, 8, 1)).astype(dtype)
        return xs, rng.integers(0, 10, 8, np.int32)
    xs = rng.normal(size=(8, 3)).astype(dtype)
    return xs, (np.sin(xs) + 1).astype(dtype)


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


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_located(fault):
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
    "fault", ["momentum", "stale-state", "skipped-update", "shared-mask"]
)
def test_float32_tolerances_still_see_faults(fault):
    model, hyper, faulty, _, _ = FAULTS[fault]
    report = compare(
        build(model, backend="reference", **hyper),
        trainer(model, faulty, "float32", **hyper),
        *batch(model, "float32"),
        steps=STEPS,
    )
    assert not report.ok, str(report)


@pytest.mark.parametrize("model", ["stateful_mlp", "digits_cnn"])
def test_without_a_fault_all_is_well(model):
    """The same arrangement as above, so that its alarms mean something."""
    hyper = MLP if model == "stateful_mlp" else CNN
    report = compare(
        build(model, backend="reference", dtype="float64", **hyper),
        trainer(model, FLAX, "float64", **hyper),
        *batch(model, "float64"),
        steps=STEPS,
    )
    assert report.ok, str(report)
    assert report.first_divergence is None


def test_stale_buffers_are_counted():
    report = compare(
        build("stateful_mlp", backend="reference", dtype="float64", **MLP),
        trainer("stateful_mlp", StaleState, "float64", **MLP),
        *batch("stateful_mlp", "float64"),
        steps=1,
    )
    (row,) = [row for row in report.rows if row.quantity == "trained"]
    assert not row.ok
    assert row.worst.error == 6  # two norms' two, and u and v
    assert row.worst.leaf.startswith("equinox.")


def test_buffers_that_both_forget_are_stale():
    """Two that are wrong alike agree with each other, and still are wrong."""
    report = compare(
        trainer("stateful_mlp", StaleState, "float64", **MLP),
        trainer("stateful_mlp", StaleState, "float64", **MLP),
        *batch("stateful_mlp", "float64"),
        steps=1,
    )
    assert {row.quantity for row in report.rows if not row.ok} == {"trained"}


def test_buffers_that_have_converged_may_stay():
    """The "ema" of one batch is that batch's: a second step moves nothing."""
    left, right = (
        build("stateful_mlp", backend=name, dtype="float64", hidden_size=5)
        for name in ("equinox", "flax")
    )
    xs, ys = batch("stateful_mlp", "float64")
    left.step(xs, ys)
    right.load(left.state())
    assert compare(left, right, xs, ys, steps=1).ok


class Overwrites(FLAX):
    """Changes a parameter at inference, as `nnx.SpectralNorm` does."""

    def predict(self, native, xs):
        predictions = super().predict(native, xs)
        kernel = native.module.linear2.kernel
        kernel[...] = 2 * kernel[...]
        return predictions


def test_inference_that_changes_something_is_seen():
    report = compare(
        build("stateful_mlp", backend="reference", dtype="float64", **MLP),
        trainer("stateful_mlp", Overwrites, "float64", **MLP),
        *batch("stateful_mlp", "float64"),
        steps=1,
    )
    (row,) = [row for row in report.rows if not row.ok]
    assert row.quantity == "kept"
    assert row.worst.leaf == "flax.params.linear2.weight"


def test_losses_that_are_not_finite_never_agree():
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


class WeakBias(EQUINOX):
    """Gives a parameter of `zero_gradient` six tenths of its gradient."""

    def __init__(self, spec, optimizer, *rest):
        def weaken(name, g):
            return 0.6 * g if name == "spectral_linear.bias" else g

        def update(updates, state, params=None):
            updates = {name: weaken(name, g) for name, g in updates.items()}
            return optimizer.update(updates, state, params)

        faulty = optax.GradientTransformation(optimizer.init, update)
        super().__init__(spec, faulty, *rest)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_parameter_without_a_gradient_is_judged_too(dtype):
    """Only its elements without one are left out, not the whole array."""
    report = compare(
        build("stateful_mlp", backend="reference", dtype=dtype),
        trainer("stateful_mlp", WeakBias, dtype),
        *batch("stateful_mlp", dtype),
        steps=1,
    )
    found = report.first_divergence
    assert found is not None
    assert "spectral_linear.bias" in found.leaf


def test_first_divergence_names_the_leaf():
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


def test_compare_leaves_the_trainers_alone(assert_same):
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


def test_two_trainers_of_one_backend():
    left, right = (
        build("stateful_mlp", backend="flax", dtype="float64", seed=s, **MLP)
        for s in (0, 1)
    )
    report = compare(left, right, *batch("stateful_mlp", "float64"), steps=1)
    assert report.pairs == [("flax (left)", "flax (right)")]
    found = report.first_divergence
    assert found is not None and found.quantity == "state"


def test_different_models_are_refused():
    changed: dict[str, Any] = MLP | {"eps": 1e-3}
    left = build("stateful_mlp", backend="flax", **MLP)
    right = build("stateful_mlp", backend="equinox", **changed)
    with pytest.raises(ValueError, match="spec of the right.*got .*expected"):
        compare(left, right, *batch("stateful_mlp", "float32"))


def test_no_steps_are_refused():
    left, right = (
        build("stateful_mlp", backend=name, **MLP)
        for name in ("equinox", "flax")
    )
    with pytest.raises(ValueError, match="steps: got 0, expected 1 or more"):
        compare(left, right, *batch("stateful_mlp", "float32"), steps=0)
