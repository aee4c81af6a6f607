"""`Trainer.fit`: its results, its place in the data, and interrupted runs."""

import signal

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common import State
from common.agreement import assert_close
from common.errors import Interrupted
from common.training import data as data_module
from common.training.loop import FIRST_CHUNK
from common.training.progress import Progress
from tests.training.runs import (
    BATCH,
    SIZE,
    STEPS,
    check_state,
    each_mode,
    use_loop,
)

# --- results ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "batch_size", "steps"), [(10, 4, 2), (8, 4, 2), (7, 7, 1)]
)
def test_examples_that_do_not_fill_a_batch_are_left_out(
    size, batch_size, steps, make, make_batch
):
    trainer = make("deep_mlp", "reference")
    data = make_batch(trainer.spec, size=size)
    losses = trainer.fit(*data, epochs=3, batch_size=batch_size)
    assert losses.shape == (3 * steps,)
    assert losses.dtype == "float64"
    state = trainer.state()
    assert state.step == 3 * steps
    assert (state.rng["epoch"], state.rng["position"]) == (3, 0)


def test_zero_epochs_change_nothing(make, data, assert_same):
    trainer = make("deep_mlp", "reference")
    before = trainer.state()
    losses = trainer.fit(*data, epochs=0)
    assert (losses.shape, losses.dtype) == ((0,), np.float64)
    assert_same(trainer.state(), before)


def test_zero_epochs_keep_the_place(make, data, monkeypatch, assert_same):
    trainer = use_loop(make("deep_mlp", "reference"), False)
    Interrupt(monkeypatch)
    with pytest.raises(Interrupted):
        trainer.fit(*data, epochs=1, batch_size=BATCH)
    before = trainer.state()
    assert before.rng["position"] > 0
    trainer.fit(*data, epochs=0, batch_size=BATCH)
    assert_same(trainer.state(), before)


@pytest.mark.parametrize("seen", [0, 5, STEPS + 3])
@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_the_progress_bar_has_the_number_of_steps(
    epochs, seen, make, data, monkeypatch
):
    totals, init = [], Progress.__init__

    def spy(self, steps, **options):
        totals.append(steps)
        init(self, steps, **options)

    monkeypatch.setattr(Progress, "__init__", spy)
    trainer = make("deep_mlp", "reference")
    trainer.place = data_module.Place(3, seen * BATCH)
    losses = trainer.fit(*data, epochs=epochs, batch_size=BATCH)
    assert totals == [len(losses)]
    assert len(losses) == max(epochs * STEPS - min(seen, STEPS), 0)


def test_fit_does_not_change_the_data(backend, make, data):
    xs, ys = (jnp.array(x) for x in data)
    trainer = make("deep_mlp", backend)
    trainer.fit(xs, ys, epochs=1, batch_size=BATCH)
    trainer.fit(xs, ys, epochs=1, batch_size=BATCH)
    assert np.array_equal(xs, data.xs) and np.array_equal(ys, data.ys)


def test_a_second_fit_compiles_nothing(backend, make, data, compiles):
    trainer = make("deep_mlp", backend)
    trainer.fit(*data, epochs=1, batch_size=BATCH)
    with compiles() as compiled:
        trainer.fit(*data, epochs=1, batch_size=BATCH)
    assert compiled == []


def test_fit_lowers_the_loss(backend, make, make_batch):
    trainer = make("deep_mlp", backend, optimizer=optax.adam(1e-2))
    xs, _ = make_batch(trainer.spec, size=64)
    losses = trainer.fit(xs, np.sin(xs) + 1, epochs=20, batch_size=16)
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) / 4


# --- interrupted ------------------------------------------------------------


class Interrupt:
    """Raises `KeyboardInterrupt` after a chunk, as a custom handler might."""

    def __init__(self, monkeypatch, chunk: int = 1):
        self._left = chunk
        self._patch = monkeypatch
        monkeypatch.setattr(Progress, "advance", self)

    def __call__(self, *_):
        self._left -= 1
        if not self._left:
            self._patch.undo()
            raise KeyboardInterrupt


@each_mode
def test_an_interrupted_run_continues_at_its_step(
    backend, dispatches, make, data, monkeypatch, assert_same
):
    whole = use_loop(make("deep_mlp", backend), dispatches)
    whole.fit(*data, epochs=2, batch_size=BATCH)

    trainer = use_loop(make("deep_mlp", backend), dispatches)
    Interrupt(monkeypatch)
    with pytest.raises(Interrupted) as caught:
        trainer.fit(*data, epochs=2, batch_size=BATCH)
    state = trainer.state()
    assert len(caught.value.losses) == state.step
    assert 0 < state.step < STEPS
    assert state.rng["epoch"] == 0
    assert state.rng["position"] == state.step * BATCH

    rest = trainer.fit(*data, epochs=2, batch_size=BATCH)
    assert len(rest) == 2 * STEPS - state.step
    assert_same(trainer.state(), whole.state())


@pytest.mark.parametrize(
    ("source", "target"),
    [("equinox", "flax"), ("flax", "equinox")],
    ids=["equinox-to-flax", "flax-to-equinox"],
)
def test_an_interrupted_run_continues_in_the_other_library(
    source, target, make, data, monkeypatch, tmp_path
):
    whole = make("deep_mlp", source)
    expected = whole.fit(*data, epochs=2, batch_size=BATCH)

    first = make("deep_mlp", source)
    Interrupt(monkeypatch)
    with pytest.raises(Interrupted):
        first.fit(*data, epochs=1, batch_size=BATCH)
    first.save(tmp_path / "run.safetensors")
    state, _ = State.read(tmp_path / "run.safetensors")
    assert 0 < state.rng["position"] < SIZE - BATCH

    second = make("deep_mlp", target, seed=99).load(state)
    rest = second.fit(*data, epochs=2, batch_size=BATCH)
    assert_close(
        rest,
        expected[int(state.step) :],
        dtype="float64",
        quantity="trajectory",
        what="losses",
    )
    check_state(second.state(), whole.state(), 2 * STEPS)


def test_an_interrupt_within_a_chunk_keeps_its_start(
    make, data, monkeypatch, assert_same
):
    trainer = use_loop(make("deep_mlp", "reference"), True)
    before = trainer.state()
    assert trainer._loop is not None
    step, calls = trainer._loop._step, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(trainer._loop, "_step", interrupted)
    with pytest.raises(Interrupted):
        trainer.fit(*data, epochs=1, batch_size=BATCH)
    assert_same(trainer.state(), before)


def test_an_interrupt_in_the_last_chunk_is_not_lost(make, data, monkeypatch):
    trainer = use_loop(make("deep_mlp", "reference"), False)
    advance = Progress.advance

    def advance_and_press(self, epoch, metrics):
        advance(self, epoch, metrics)
        if trainer.place.epoch == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "advance", advance_and_press)
    with pytest.raises(Interrupted) as caught:
        trainer.fit(*data, epochs=1, batch_size=BATCH)
    assert len(caught.value.losses) == STEPS


def test_a_signal_is_handled_after_the_chunk(make, data, monkeypatch):
    trainer = use_loop(make("deep_mlp", "reference"), True)
    assert trainer._loop is not None
    step, calls = trainer._loop._step, []

    def press_in_the_fifth_step(*args):
        calls.append(args)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return step(*args)

    monkeypatch.setattr(trainer._loop, "_step", press_in_the_fifth_step)
    with pytest.raises(Interrupted) as caught:
        trainer.fit(*data, epochs=1, batch_size=BATCH)
    assert len(caught.value.losses) == FIRST_CHUNK == trainer.state().step
