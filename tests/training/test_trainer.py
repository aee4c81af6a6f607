"""`Trainer`: steps, inference, dtypes and names."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common.agreement import assert_close


def check(actual, expected, *, what="", quantity="update", dtype="float64"):
    assert_close(actual, expected, dtype=dtype, quantity=quantity, what=what)


@pytest.fixture
def simple(backend, make, make_batch):
    """The smallest trainer of a backend, and a batch."""
    trainer = make("deep_mlp", backend)
    return trainer, make_batch(trainer.spec)


# --- step -------------------------------------------------------------------


def test_a_step_changes_everything_but_keys_and_place(
    model, backend, make, make_batch
):
    trainer = make(model, backend)
    before = trainer.state().flat()
    metrics = trainer.step(*make_batch(trainer.spec))
    assert metrics.keys() == {"loss", *trainer.spec.metrics}
    assert all(x.shape == () for x in metrics.values())
    after = trainer.state().flat()
    same = {n for n, x in after.items() if np.array_equal(x, before[n])}
    # A bias before a BatchNorm has no gradient, so it may stay the same.
    may_stay = {
        f"{group}.{name}"
        for name in trainer.spec.zero_gradient
        for group in ("params", "opt.optimizer.0.mu", "opt.optimizer.0.nu")
    }
    assert same - may_stay == {"rng.key", "rng.epoch", "rng.position"}
    assert after["step"] == 1


def test_metrics_are_those_before_the_update(simple):
    trainer, (xs, ys) = simple
    # "standard" trains on the batch's own statistics, at any step.
    first = trainer.step(xs, ys)["loss"]
    second = trainer.step(xs, ys)["loss"]
    assert second < first


def test_a_second_step_compiles_nothing(backend, make, make_batch, compiles):
    trainer = make("deep_mlp", backend, fresh=True)
    batch = make_batch(trainer.spec)
    with compiles() as compiled:
        trainer.step(*batch)
    assert compiled  # the fixture works
    with compiles() as compiled:
        trainer.step(*batch)
        trainer.step(*(jax.device_put(x) for x in batch))
    assert compiled == []
    with compiles() as compiled:
        trainer.step(*(x[:4] for x in batch))
    assert len(compiled) == 1


def test_loading_a_state_compiles_no_step(simple, compiles):
    """Loaded arrays have the types that the step was compiled for."""
    trainer, batch = simple
    trainer.step(*batch)
    trainer.load(trainer.state())
    with compiles() as compiled:
        trainer.step(*batch)
    assert compiled == []


def test_custom_metrics(backend, make, make_batch):
    def worst(predictions, targets):
        return jnp.max(jnp.abs(predictions - targets))

    trainer = make("deep_mlp", backend, metrics={"worst": worst})
    xs, ys = make_batch(trainer.spec)
    expected = np.max(np.abs(np.asarray(trainer.predict(xs)) - ys))
    check(trainer.evaluate(xs, ys)["worst"], expected, quantity="forward")
    assert trainer.step(xs, ys).keys() == {"loss", "worst"}


def test_custom_loss(backend, make, make_batch):
    def absolute(predictions, targets):
        return jnp.mean(jnp.abs(predictions - targets))

    trainer = make("deep_mlp", backend, loss=absolute)
    xs, ys = make_batch(trainer.spec)
    expected = np.mean(np.abs(np.asarray(trainer.predict(xs)) - ys))
    check(trainer.evaluate(xs, ys)["loss"], expected, quantity="loss")


# --- inference --------------------------------------------------------------


def test_inference_changes_nothing(
    model, backend, make, make_batch, assert_same
):
    trainer = make(model, backend)
    xs, ys = make_batch(trainer.spec)
    trainer.step(xs, ys)
    before = trainer.state()
    first = trainer.predict(xs)
    metrics = trainer.evaluate(xs, ys)
    assert_same(trainer.state(), before)
    assert np.array_equal(trainer.predict(xs), first)
    loss = trainer.backend.loss(first, jnp.array(ys))
    check(metrics["loss"], loss, quantity="loss")


def test_inference_treats_each_example_alone(model, backend, make, make_batch):
    """It uses neither batch statistics nor dropout."""
    trainer = make(model, backend)
    xs, ys = make_batch(trainer.spec)
    trainer.step(xs, ys)
    others = np.concatenate([xs[:2], -xs[2:]])
    check(
        trainer.predict(others)[:2],
        trainer.predict(xs)[:2],
        quantity="forward",
    )


# --- dtype ------------------------------------------------------------------


def test_float32_is_the_same_with_x64_on_and_off(
    backend, make, make_batch, assert_same
):
    """The x64 mode would also change the dropout masks."""
    runs = []
    for x64 in (True, False):
        with jax.enable_x64(x64):
            trainer = make("digits_cnn", backend, dtype="float32")
            batch = make_batch(trainer.spec, dtype="float32")
            losses = [trainer.step(*batch)["loss"] for _ in range(3)]
            state = trainer.state()
            runs.append((losses, trainer.predict(batch.xs), state))
            assert all(x.dtype == "float32" for x in losses)
    (on, predictions_on, state_on), (off, predictions_off, state_off) = runs
    assert [x.tobytes() for x in map(np.asarray, on)] == [
        x.tobytes() for x in map(np.asarray, off)
    ]
    assert np.array_equal(predictions_on, predictions_off)
    assert_same(state_on, state_off)


# --- names ------------------------------------------------------------------


def test_nnx_is_flax(make, assert_same):
    trainer = make("deep_mlp", "nnx")
    assert trainer.backend.name == "flax"
    assert_same(trainer.state(), make("deep_mlp", "flax").state())


def test_a_backend_has_its_name(backend, make):
    assert make("deep_mlp", backend).backend.name == backend


def test_with_optimizer_starts_anew(backend, make, make_batch, assert_same):
    trainer = make("deep_mlp", backend)
    batch = make_batch(trainer.spec)
    other = trainer.with_optimizer(optax.sgd(1e-2))
    expected = make("deep_mlp", backend, optimizer=optax.sgd(1e-2))
    other.step(*batch)
    expected.step(*batch)
    assert_same(other.state(), expected.state())
    assert trainer.state().step == 0


def test_with_optimizer_checks_the_optimizer(make):
    trainer = make("deep_mlp", "reference")
    per_example = optax.contrib.differentially_private_aggregate(
        1.0, 0.1, key=jax.random.key(0)
    )
    with pytest.raises(ValueError, match="optimizer update of"):
        trainer.with_optimizer(per_example)


def test_repr_is_one_line(backend, make, make_batch):
    trainer = make("deep_mlp", backend)
    trainer.step(*make_batch(trainer.spec))
    assert repr(trainer) == (
        f"Trainer('deep_mlp', backend={backend!r}, dtype='float64', step=1)"
    )


def test_load_takes_the_path_of_a_file(make, tmp_path, assert_same):
    trainer = make("deep_mlp", "flax", seed=3)
    trainer.save(tmp_path / "run")
    other = make("deep_mlp", "equinox").load(tmp_path / "run")
    assert_same(other.state(), trainer.state())
