"""A run that is saved, switched or interrupted keeps its trajectory.

The model has dropout and running statistics, and Adam has a schedule. An
epoch has two steps and leaves three examples out.
"""

import dataclasses
from typing import Any

import numpy as np
import optax
import pytest

from common import State, Trainer, agreement, checkpoints
from common.errors import Interrupted
from common.training.progress import Progress
from tests.conftest import exhaustive_but
from tests.training.runs import use_loop

SIZE, BATCH = 11, 4
EPOCH = SIZE // BATCH
QUICK = 50
OPTIMIZER: Any = optax.adam(optax.cosine_decay_schedule(1e-2, 400, 0.1))


@pytest.fixture
def start(make):
    """Takes a run back to its start, in a trainer that is compiled already."""
    made: dict[Any, tuple[Trainer, State]] = {}

    def start(backend: str, dtype: str = "float64") -> Trainer:
        if (backend, dtype) not in made:
            options = {"optimizer": OPTIMIZER, "dtype": dtype}
            trainer = use_loop(make("digits_cnn", backend, **options), True)
            made[backend, dtype] = trainer, trainer.state()
        trainer, first = made[backend, dtype]
        return trainer.load(first)

    return start


@pytest.fixture
def data(start, make_batch):
    spec = start("flax").spec
    assert spec.dropout > 0
    return make_batch(spec, size=SIZE)


@pytest.fixture
def run(data, monkeypatch):
    """Takes so many steps with `fit`, and ends within an epoch if need be.

    The chunks of a run that is interrupted have one step each.
    """

    def run(trainer: Trainer, steps: int, **options) -> np.ndarray:
        left = [steps]

        def advance(*_):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

        loop: Any = trainer._loop
        with monkeypatch.context() as patch:
            patch.setattr(Progress, "advance", advance)
            patch.setattr(loop, "_adapt", lambda seconds: None)
            patch.setattr(loop, "_count", 1)
            with pytest.raises(Interrupted) as caught:
                trainer.fit(*data, epochs=steps, batch_size=BATCH, **options)
        return caught.value.losses

    return run


def check(actual: np.ndarray, expected: np.ndarray) -> None:
    """Asserts that every loss agrees, relative to its own magnitude."""
    assert np.isfinite(expected).all() and np.ptp(expected) > 0
    errors = np.abs(actual - expected) / np.abs(expected)
    bound = agreement.tolerance("float64", "trajectory")
    worst = errors.argmax()
    assert errors[worst] <= bound, f"step {worst + 1}: {errors[worst]:.2g}"


def check_states(actual: State, expected: State) -> None:
    errors = agreement.relative_errors(actual.flat(), expected.flat())
    bound = agreement.tolerance("float64", "parameters")
    worst = max(errors, key=lambda name: errors[name])
    assert errors[worst] <= bound, (worst, errors[worst])
    for name in ("key", "epoch", "position"):
        assert np.array_equal(actual.rng[name], expected.rng[name]), name


@pytest.mark.parametrize("steps", exhaustive_but([QUICK, 1000], QUICK))
def test_halves_switches_and_crashes_keep_the_trajectory(
    steps, start, run, data, tmp_path
):
    whole = start("equinox")
    half = steps // 2 // EPOCH * EPOCH + 1
    assert half % EPOCH  # within an epoch
    expected = whole.fit(*data, epochs=steps // EPOCH, batch_size=BATCH)
    assert len(expected) == steps
    end = whole.state()

    # Two halves in each library: bit-identical in the first one.
    for backend in ("equinox", "flax"):
        trainer = start(backend)
        first = run(trainer, half)
        trainer.save(tmp_path / backend)
        second = start(backend).load(tmp_path / backend)
        rest = run(second, steps - half)
        losses = np.concatenate([first, rest])
        check(losses, expected)
        check_states(second.state(), end)
        if backend == "equinox":
            assert np.array_equal(losses, expected)
            state = second.state()
            assert state.step == steps

    # A switch at every step.
    here, there = start("equinox"), start("flax")
    losses = []
    for _ in range(steps):
        losses.append(run(here, 1))
        here, there = there.load(here.state()), here
    check(np.concatenate(losses), expected)
    check_states(here.state(), end)

    # A crash between two checkpoints, and on in the other library.
    folder = tmp_path / "run"
    trainer = start("equinox")
    run(trainer, half, checkpoint=folder, every=7)
    saved = [n for n in checkpoints.steps(folder) if n < half][-1]
    assert saved % EPOCH and saved % 7 == 0 or steps != QUICK
    for backend in ("equinox", "flax"):
        again = start(backend).load(folder / str(saved))
        rest = run(again, steps - saved)
        check(rest, expected[saved:])
        if backend == "equinox":
            assert np.array_equal(rest, expected[saved:])


def _without_moments(state: State) -> State:
    opt = {
        name: np.zeros_like(x) if ".mu." in name else x
        for name, x in state.opt.items()
    }
    return dataclasses.replace(state, opt=opt)


def _rng(**changes):
    def change(state: State) -> State:
        return dataclasses.replace(state, rng={**state.rng, **changes})

    return change


def _count(state: State) -> State:
    opt = {
        name: np.zeros_like(x) if name.endswith("count") else x
        for name, x in state.opt.items()
    }
    return dataclasses.replace(state, opt=opt)


def _step(state: State) -> State:
    return dataclasses.replace(state, step=np.int32(state.step + 1))


def _statistics(state: State) -> State:
    buffers = {name: np.zeros_like(x) for name, x in state.buffers.items()}
    return dataclasses.replace(state, buffers=buffers)


FAULTS = {
    "moments": _without_moments,
    "schedule": _count,
    "dropout": _step,
    "position": _rng(position=np.int32(0)),
    "epoch": _rng(epoch=np.int32(3)),
    "statistics": _statistics,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_lost_when_resuming_is_noticed(fault, start, run):
    trainer = start("equinox")
    run(trainer, 5)
    state = trainer.state()
    expected = run(trainer, 6)
    end = trainer.state()
    lost = start("equinox").load(FAULTS[fault](state))
    losses = run(lost, 6)
    with pytest.raises(AssertionError):
        check(losses, expected)
        check_states(lost.state(), end)


@pytest.mark.parametrize("backend", ["equinox", "flax"])
def test_float32_is_bit_identical_without_a_switch(
    backend, start, run, data, make_batch, tmp_path, assert_same
):
    whole = start(backend, "float32")
    batch = make_batch(whole.spec, size=SIZE, dtype="float32")
    expected = whole.fit(*batch, epochs=10, batch_size=BATCH)
    end = whole.state()
    trainer = start(backend, "float32")
    folder = tmp_path / "run"
    options: Any = {"batch_size": BATCH, "checkpoint": folder, "every": 7}
    trainer.fit(*batch, epochs=9, **options)
    again = start(backend, "float32").load(folder / "7")
    rest = again.fit(*batch, epochs=7, batch_size=BATCH)
    assert np.array_equal(rest, expected[7:])
    assert_same(again.state(), end)
