"""`build(accumulate=K)`: a batch in parts is the batch, and takes less memory.

The models of a user have dropout and no batch statistics, so that a batch in
parts must give the numbers of the whole batch, masks included.
"""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from flax import nnx

from common import build, load
from common.agreement import assert_close
from common.errors import BatchError
from common.training import native_calls

RNG = np.random.default_rng(0)
XS, YS = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 2))


class EqxDropped(eqx.Module):
    linear: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self, key):
        self.linear = eqx.nn.Linear(3, 2, key=key)
        self.dropout = eqx.nn.Dropout(0.5)

    def __call__(self, x, key=None):
        return self.dropout(self.linear(x), key=key)


class NnxDropped(nnx.Module):
    """It holds the stream of its masks, which the call counts on."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.linear(x))


def make_dropped(library):
    """Returns a linear layer with dropout."""
    if library == "flax":
        return NnxDropped(rngs=nnx.Rngs(0))
    return EqxDropped(jax.random.key(0))


def count_large(predictions, targets):
    """A metric whose value is an integer, which becomes a mean."""
    del targets
    return (predictions > 0).sum()


def train(library, steps=1, optimizer=None, **options):
    """Trains a model with dropout, and returns its metrics and its State."""
    trainer = build(
        model=make_dropped(library),
        optimizer=optimizer or optax.sgd(0.1),
        loss="mse",
        metrics={"large": count_large},
        dtype="float64",
        **options,
    )
    metrics = [trainer.step(XS, YS) for _ in range(steps)]
    return metrics, trainer.state()


def check_equal(library, **options):
    """Asserts that a batch in parts gives the numbers of the whole batch."""
    parts = options.get("accumulate", 4)
    metrics, state = train(library, **{"accumulate": parts, **options})
    options.pop("accumulate", None)
    expected, expected_state = train(library, **options)
    for got, want in zip(metrics, expected, strict=True):
        assert_close(
            got["loss"], want["loss"], dtype="float64", quantity="loss"
        )
        assert got["large"] * parts == want["large"]
    for name, x in expected_state.rng.items():
        assert np.array_equal(state.rng[name], x), name
    for group, quantity in (("params", "update"), ("opt", "moments")):
        assert_close(
            getattr(state, group),
            getattr(expected_state, group),
            dtype="float64",
            quantity=quantity,
            what=group,
        )


@pytest.mark.parametrize("library", ["equinox", "flax"])
def test_parts_are_the_whole_batch(library):
    check_equal(library)


@pytest.mark.exhaustive
@pytest.mark.parametrize("library", ["equinox", "flax"])
def test_a_line_search_evaluates_the_mean_over_the_parts(library):
    check_equal(library, optimizer=optax.lbfgs())


def test_the_check_finds_gradients_that_are_not_averaged(monkeypatch):
    average = native_calls.average_over_parts

    def add_up(function, parts, *args):
        state, (metrics, grads) = average(function, parts, *args)
        grads = jax.tree.map(lambda x: parts * x, grads)
        return state, (metrics, grads)

    monkeypatch.setattr(native_calls, "average_over_parts", add_up)
    with pytest.raises(AssertionError, match="params"):
        check_equal("equinox")


def test_the_check_finds_masks_of_the_parts_alone(monkeypatch):
    monkeypatch.setattr(
        "common.part_keys.of_parts",
        lambda key, parts: jax.random.split(key, parts),
    )
    monkeypatch.setattr("common.part_keys.whole", lambda key: key)
    with pytest.raises(AssertionError):
        check_equal("equinox")


# Backends of the specs: the same definition in parts in all of them.


@pytest.mark.parametrize("backend", ["equinox", "flax"])
def test_parts_agree_with_the_reference(backend, make, make_batch):
    """With dropout, and batch statistics that pass from part to part."""
    states = []
    for name in ("reference", backend):
        trainer = make("digits_cnn", name, accumulate=2)
        trainer.step(*make_batch(trainer.spec))
        states.append(trainer.state())
    for group, quantity in (("params", "update"), ("buffers", "buffers")):
        expected, got = (getattr(state, group) for state in states)
        assert_close(got, expected, dtype="float64", quantity=quantity)


def test_running_statistics_pass_from_part_to_part(make, make_batch):
    whole = make("deep_mlp", "reference")
    xs, ys = make_batch(whole.spec)
    trainer = make("deep_mlp", "reference", accumulate=2)
    trainer.step(xs, ys)
    name = "blocks.0.norm.running_mean"
    weight = whole.state().params["blocks.0.linear.weight"]
    first, second = (xs[k::2] @ weight.T for k in range(2))
    m = whole.spec.momentum
    expected = m * (1 - m) * first.mean(0) + (1 - m) * second.mean(0)
    found = trainer.state().buffers[name]
    assert_close(found, expected, dtype="float64", quantity="buffers")


def test_more_parts_take_less_memory(make_batch):
    bytes_of = {}
    for parts in (1, 8):
        trainer = build(
            "deep_mlp", backend="reference", depth=2, size=32, accumulate=parts
        )
        batch = make_batch(trainer.spec, size=4096, dtype="float32")
        step = jax.jit(trainer.pure_step)
        compiled = step.lower(trainer.leaves, batch).compile()
        memory: Any = compiled.memory_analysis()
        bytes_of[parts] = memory.temp_size_in_bytes
    assert bytes_of[8] < bytes_of[1] / 2


# Files


def test_a_file_records_the_parts(tmp_path, make):
    path = tmp_path / "run.safetensors"
    trainer = make("deep_mlp", "reference", accumulate=2)
    assert repr(trainer).endswith("step=0, accumulate=2)")
    trainer.save(path)
    assert load(path, backend="reference").settings.accumulate == 2
    other = make("deep_mlp", "reference", accumulate=4)
    with pytest.warns(UserWarning, match="accumulate 2, expected 4 as in"):
        other.load(path)


# Bad input


@pytest.mark.parametrize("parts", [0, -1, 1.0, True, "2", None])
def test_a_wrong_number_of_parts_is_refused(parts):
    with pytest.raises(
        ValueError, match="accumulate: got .*, expected an int"
    ):
        build(backend="reference", accumulate=parts)


def test_a_batch_that_cannot_be_split_is_refused(make, make_batch):
    trainer = make("deep_mlp", "reference", accumulate=3, fresh=True)
    xs, ys = make_batch(trainer.spec)
    message = (
        "batch: got 8 examples, expected a multiple of 3 for accumulate=3"
    )
    with pytest.raises(BatchError, match=message):
        trainer.step(xs, ys)
    message = "batch: got 3 examples, which are 1 in each part .* at least 2"
    with pytest.raises(BatchError, match=message):
        trainer.step(xs[:3], ys[:3])
    with pytest.raises(BatchError, match="batch_size: got 8 examples"):
        trainer.fit(xs, ys, batch_size=8, progress=False)
    assert trainer._step._cache_size() == 0


def test_inputs_of_different_sizes_cannot_be_split():
    trainer = build(
        model=eqx.nn.Linear(3, 2, key=jax.random.key(0)),
        call=lambda model, xs, **_: (jax.vmap(model)(xs), model),
        optimizer=optax.sgd(0.1),
        loss=lambda predictions, targets: predictions.mean() + targets.sum(),
        accumulate=2,
    )
    with pytest.raises(BatchError, match="inputs and targets: got"):
        trainer.check_batch(XS.astype("float32"), YS[:4].astype("float32"))


def test_a_step_of_the_users_own_is_not_split():
    with pytest.raises(ValueError, match="accumulate=2 with a step of EqxDr"):
        build(
            model=EqxDropped(jax.random.key(0)),
            step=lambda *_, **__: (None, None, {}),
            optimizer=optax.sgd(0.1),
            accumulate=2,
        )
