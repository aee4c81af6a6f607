"""The compiled loop: its steps, its chunks, and values that are not finite."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common import State, Trainer
from common.agreement import assert_close
from common.errors import NonFiniteLossError
from common.training import data as data_module
from common.training.loop import FIRST_CHUNK, Loop, loops_slowly
from tests.training.runs import (
    BATCH,
    SIZE,
    STEPS,
    check_state,
    each_mode,
    rows,
    use_loop,
)

assert FIRST_CHUNK < STEPS
LATER = 29  # an example that the first epoch of seed 0 meets late

# --- steps ------------------------------------------------------------------


@each_mode
def test_fit_takes_the_same_steps_as_step(backend, dispatches, make, data):
    by_fit = use_loop(make("deep_mlp", backend), dispatches)
    losses = by_fit.fit(*data, epochs=2, batch_size=BATCH)

    by_hand = make("deep_mlp", backend)
    expected = [
        by_hand.step(data.xs[row], data.ys[row])["loss"]
        for epoch in range(2)
        for row in rows(by_hand, epoch, SIZE, BATCH)
    ]
    assert_close(
        losses,
        np.array(expected),
        dtype="float64",
        quantity="trajectory",
        what="losses",
    )
    state = by_hand.state()
    rng = {**state.rng, "epoch": np.int32(2)}
    check_state(
        by_fit.state(), State(**{**vars(state), "rng": rng}), 2 * STEPS
    )


@each_mode
def test_two_fits_equal_one(backend, dispatches, make, data, assert_same):
    one = use_loop(make("deep_mlp", backend), dispatches)
    whole = one.fit(*data, epochs=2, batch_size=BATCH)
    two = use_loop(make("deep_mlp", backend), dispatches)
    first = two.fit(*data, epochs=1, batch_size=BATCH)
    second = two.fit(*data, epochs=1, batch_size=BATCH)
    assert np.array_equal(whole, np.concatenate([first, second]))
    assert_same(two.state(), one.state())


@pytest.mark.parametrize("backend", ["equinox", "flax"])
def test_dropout_depends_on_the_step(backend, make, make_batch):
    """Its mask is the same in a loop and by hand."""
    by_fit, by_hand = (make("digits_cnn", backend) for _ in range(2))
    data = make_batch(by_fit.spec, size=9)
    losses = by_fit.fit(*data, epochs=1, batch_size=3)
    expected = [
        by_hand.step(data.xs[row], data.ys[row])["loss"]
        for row in rows(by_hand, 0, 9, 3)
    ]
    assert_close(
        losses, np.array(expected), dtype="float64", quantity="trajectory"
    )


@pytest.mark.parametrize(
    ("model", "dispatches"), [("deep_mlp", False), ("digits_cnn", True)]
)
def test_a_convolution_is_dispatched_on_cpu(
    model, dispatches, backend, make, make_batch
):
    if jax.default_backend() != "cpu":
        pytest.skip("Only XLA on CPU runs convolutions in loops slowly.")
    trainer = make(model, backend)
    xs, ys = make_batch(trainer.spec, size=4)
    loop = Loop(trainer.pure_step)
    row = np.arange(2, dtype=np.int32)
    arguments = (trainer.leaves, (xs, ys), row)
    assert loops_slowly(loop._step_at, *arguments) == dispatches


@each_mode
def test_the_loop_changes_neither_its_arguments_nor_the_trainer(
    backend, dispatches, make, data, assert_same
):
    trainer = make("deep_mlp", backend)
    before = trainer.state()
    leaves = trainer.leaves
    copies = [np.array(x) for x in leaves]
    loop = Loop(trainer.pure_step, dispatches=dispatches)

    def take(start, end, *, count):
        return data_module.take(
            trainer.run_key, start, end, SIZE, BATCH, count
        )

    end = data_module.Place(1, 0)
    chunks = list(loop.chunks(leaves, trainer.place, end, data, take))
    assert [len(chunk.metrics["loss"]) for chunk in chunks] == [
        FIRST_CHUNK,
        STEPS - FIRST_CHUNK,
    ]
    assert chunks[-1].place == end
    for x, copy in zip(leaves, copies, strict=True):
        assert np.array_equal(x, copy)
    assert_same(trainer.state(), before)


# --- values that are not finite ---------------------------------------------


def state_after(trainer: Trainer, data, steps: int) -> State:
    """Returns the State after some steps that the loop takes one by one."""
    loop = trainer._loop
    assert loop is not None
    leaves = trainer.leaves
    for row in rows(trainer, 0, SIZE, BATCH)[:steps]:
        leaves, _, finite = loop.run(leaves, data, row[None])
        assert finite
    state = State.from_flat(trainer.pure.state(leaves))
    place = {"epoch": np.int32(0), "position": np.int32(steps * BATCH)}
    return dataclasses.replace(state, rng={**state.rng, **place}).numpy()


@each_mode
@pytest.mark.parametrize("where", ["xs", "ys"])
def test_a_nan_stops_the_run_before_its_step(
    where, backend, dispatches, make, data, assert_same
):
    trainer = use_loop(make("deep_mlp", backend), dispatches)
    getattr(data, where)[LATER, 1] = np.nan
    good = int(np.argwhere(rows(trainer, 0, SIZE, BATCH) == LATER)[0, 0])
    assert 0 < good
    with pytest.raises(
        NonFiniteLossError,
        match=rf"^step {good + 1}: got a loss of nan, expected finite "
        rf"values\. The trainer holds the state after step {good}; lower "
        r"the learning rate or look at the data of this step\.$",
    ) as caught:
        trainer.fit(*data, epochs=1, batch_size=BATCH)
    assert caught.value.step == good + 1

    by_hand = use_loop(make("deep_mlp", backend), dispatches)
    expected = state_after(by_hand, tuple(map(jnp.asarray, data)), good)
    assert_same(trainer.state(), expected)
    assert expected.step == good
    assert expected.rng["position"] == good * BATCH


def test_the_run_continues_from_the_last_finite_state(make, data):
    """With corrected data, it ends like a run that never failed."""
    whole = make("deep_mlp", "reference")
    expected = whole.fit(*data, epochs=1, batch_size=BATCH)

    trainer = make("deep_mlp", "reference")
    kept = data.xs[LATER].copy()
    data.xs[LATER] = np.inf
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit(*data, epochs=1, batch_size=BATCH)
    data.xs[LATER] = kept
    rest = trainer.fit(*data, epochs=1, batch_size=BATCH)
    whole_run = np.concatenate([caught.value.losses, rest])
    assert np.array_equal(whole_run, expected)


@each_mode
def test_a_run_continues_after_a_finite_replay(
    dispatches, make, data, monkeypatch, assert_same
):
    """This can happen on a device that is not deterministic."""
    whole = use_loop(make("deep_mlp", "reference"), dispatches)
    expected = whole.fit(*data, epochs=1, batch_size=BATCH)

    trainer = use_loop(make("deep_mlp", "reference"), dispatches)
    assert trainer._loop is not None
    run, calls = trainer._loop.run, []

    def once_infinite(leaves, data, rows):
        calls.append(len(rows))
        leaves, metrics, finite = run(leaves, data, rows)
        return leaves, metrics, finite and len(calls) > 1

    monkeypatch.setattr(trainer._loop, "run", once_infinite)
    losses = trainer.fit(*data, epochs=1, batch_size=BATCH)
    assert calls[: FIRST_CHUNK + 1] == [FIRST_CHUNK] + [1] * FIRST_CHUNK
    assert np.array_equal(losses, expected)
    assert_same(trainer.state(), whole.state())


@each_mode
def test_an_infinite_update_stops_the_run_before_it(
    backend, dispatches, make, data, assert_same
):
    """The loss of the first step is finite, and its update is not."""
    trainer = make("deep_mlp", backend, optimizer=optax.sgd(1e308))
    use_loop(trainer, dispatches)
    before = trainer.state()
    with pytest.raises(
        NonFiniteLossError,
        match=r"^step 1: got non-finite values in the updated model, "
        r"expected finite values\. The trainer holds the state after step 0",
    ):
        trainer.fit(data.xs * 1e3, data.ys * 1e3, epochs=1, batch_size=BATCH)
    assert_same(trainer.state(), before)


def test_a_run_that_diverges_stops_at_the_first_infinite_step(
    backend, make, data
):
    """The learning rate is so high that the loss overflows."""
    trainer = make("deep_mlp", backend, optimizer=optax.sgd(1e20))
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit(*data, epochs=1, batch_size=BATCH)
    assert 1 < caught.value.step <= STEPS
    state = trainer.state()
    assert state.step == caught.value.step - 1
    for name, x in state.flat().items():
        assert np.isfinite(x).all(), name
    loss = trainer.step(
        *(x[rows(trainer, 0, SIZE, BATCH)[state.step]] for x in data)
    )["loss"]
    after = trainer.state().flat()
    finite = all(np.isfinite(x).all() for x in after.values())
    assert not (np.isfinite(loss) and finite)
