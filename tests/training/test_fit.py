"""The compiled loop: the same steps as by hand, in an order of its own."""

import inspect
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import State, Trainer
from common.agreement import assert_close
from common.errors import BatchError, NonFiniteLossError
from common.training import checks
from common.training import data as data_module
from common.training.loop import FIRST_CHUNK, Loop, loops_slowly
from common.training.progress import Progress

BATCH = 2
SIZE = 41  # twenty steps an epoch, more than the first chunk, and one left
assert FIRST_CHUNK < SIZE // BATCH
STEPS = SIZE // BATCH
LATER = 29  # an example that the first epoch of seed 0 meets late

modes = pytest.mark.parametrize(
    "dispatches", [False, True], ids=["scan", "dispatch"]
)


@pytest.fixture
def data(make, make_batch):
    return make_batch(make("deep_mlp", "reference").spec, size=SIZE)


def rows(trainer: Trainer, epoch: int, size: int, batch: int) -> np.ndarray:
    """The examples of each step of an epoch."""
    key = trainer.state().rng["key"]
    order = data_module.order(key, epoch, size)
    steps = size // batch
    return order[: steps * batch].reshape(steps, batch)


LOOPS: weakref.WeakKeyDictionary[Trainer, dict[bool, Loop]] = (
    weakref.WeakKeyDictionary()
)


def force(trainer: Trainer, dispatches: bool) -> Trainer:
    """Makes `fit` dispatch single steps, or not."""
    loops = LOOPS.setdefault(trainer, {})
    if dispatches not in loops:
        loops[dispatches] = Loop(trainer.pure_step)
        loops[dispatches]._dispatches = dispatches
    trainer._loop = loops[dispatches]
    trainer._loop._count = FIRST_CHUNK
    return trainer


def check_state(actual: State, expected: State, steps: int) -> None:
    """Asserts that two runs are at the same place, but for round-off."""
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


# --- order ------------------------------------------------------------------

keys = st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=2).map(
    lambda words: np.array(words, np.uint32)
)


@given(key=keys, epoch=st.integers(0, 1000), size=st.integers(1, 200))
def test_order_is_a_permutation_by_seed_and_epoch(key, epoch, size):
    order = data_module.order(key, epoch, size)
    assert order.dtype == np.int32
    assert sorted(order) == list(range(size))
    assert np.array_equal(order, data_module.order(key, epoch, size))


def test_order_changes_with_the_seed_and_the_epoch(make):
    first, second = (
        make("deep_mlp", "reference", seed=seed).state().rng["key"]
        for seed in (0, 1)
    )
    orders = {
        tuple(data_module.order(key, epoch, SIZE))
        for key in (first, second)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_order_is_the_same_in_every_backend(backend, make):
    key = make("deep_mlp", backend, seed=3).state().rng["key"]
    reference = make("deep_mlp", "reference", seed=3).state().rng["key"]
    assert np.array_equal(key, reference)


# --- the same as by hand ----------------------------------------------------


@modes
def test_fit_takes_the_steps_that_one_would_by_hand(
    backend, dispatches, make, data
):
    by_fit = force(make("deep_mlp", backend), dispatches)
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


@modes
def test_two_fits_are_one(backend, dispatches, make, data, assert_same):
    one = force(make("deep_mlp", backend), dispatches)
    whole = one.fit(*data, epochs=2, batch_size=BATCH)
    two = force(make("deep_mlp", backend), dispatches)
    first = two.fit(*data, epochs=1, batch_size=BATCH)
    second = two.fit(*data, epochs=1, batch_size=BATCH)
    assert np.array_equal(whole, np.concatenate([first, second]))
    assert_same(two.state(), one.state())


@pytest.mark.parametrize("backend", ["equinox", "flax"])
def test_dropout_goes_on_with_the_step(backend, make, make_batch):
    """The mask of a step depends on its number, not on the loop."""
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
        pytest.skip("Only the CPU is slow at a convolution in a loop.")
    trainer = make(model, backend)
    xs, ys = make_batch(trainer.spec, size=4)
    loop = Loop(trainer.pure_step)
    row = np.arange(2, dtype=np.int32)
    arguments = (trainer.leaves, (xs, ys), row)
    assert loops_slowly(loop._step_at, *arguments) == dispatches


# --- what comes back --------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "batch_size", "steps"), [(10, 4, 2), (8, 4, 2), (7, 7, 1)]
)
def test_an_incomplete_batch_is_left_out(
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


def test_no_epochs_change_nothing(make, data, assert_same):
    trainer = make("deep_mlp", "reference")
    before = trainer.state()
    losses = trainer.fit(*data, epochs=0)
    assert (losses.shape, losses.dtype) == ((0,), np.float64)
    assert_same(trainer.state(), before)


def test_no_epochs_keep_the_place(make, data, monkeypatch, assert_same):
    trainer = force(make("deep_mlp", "reference"), False)
    Interrupt(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*data, epochs=1, batch_size=BATCH)
    before = trainer.state()
    assert before.rng["position"] > 0
    trainer.fit(*data, epochs=0, batch_size=BATCH)
    assert_same(trainer.state(), before)


@pytest.mark.parametrize("seen", [0, 5, STEPS + 3])
@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_progress_knows_how_many_steps_there_are(
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


def test_fit_leaves_the_data_alone(backend, make, data):
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


def test_fit_learns(backend, make, make_batch):
    """A real fit: the loss of a task that can be learned goes down."""
    trainer = make("deep_mlp", backend, optimizer=optax.adam(1e-2))
    xs, _ = make_batch(trainer.spec, size=64)
    losses = trainer.fit(xs, np.sin(xs) + 1, epochs=20, batch_size=16)
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) / 4


# --- interrupted ------------------------------------------------------------


class Interrupt:
    """Stands in for Control-C, at the end of the n-th chunk."""

    def __init__(self, monkeypatch, chunk: int = 1):
        self._left = chunk
        self._patch = monkeypatch
        monkeypatch.setattr(Progress, "advance", self)

    def __call__(self, *_):
        self._left -= 1
        if not self._left:
            self._patch.undo()
            raise KeyboardInterrupt


@modes
def test_an_interrupted_run_goes_on_where_it_was(
    backend, dispatches, make, data, monkeypatch, assert_same
):
    whole = force(make("deep_mlp", backend), dispatches)
    whole.fit(*data, epochs=2, batch_size=BATCH)

    trainer = force(make("deep_mlp", backend), dispatches)
    Interrupt(monkeypatch)
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer.fit(*data, epochs=2, batch_size=BATCH)
    state = trainer.state()
    assert len(vars(caught.value)["losses"]) == state.step
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
def test_an_interrupted_run_goes_on_in_the_other_library(
    source, target, make, data, monkeypatch, tmp_path
):
    whole = make("deep_mlp", source)
    expected = whole.fit(*data, epochs=2, batch_size=BATCH)

    first = make("deep_mlp", source)
    Interrupt(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
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


def test_an_interrupt_within_a_chunk_leaves_its_start(
    make, data, monkeypatch, assert_same
):
    trainer = force(make("deep_mlp", "reference"), True)
    before = trainer.state()
    assert trainer._loop is not None
    step, calls = trainer._loop._step, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(trainer._loop, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*data, epochs=1, batch_size=BATCH)
    assert_same(trainer.state(), before)


# --- non-finite -------------------------------------------------------------


def last_good(trainer: Trainer, data, steps: int) -> State:
    """Goes a number of steps one by one, in the trainer's own loop."""
    loop = trainer._loop
    assert loop is not None
    for row in rows(trainer, 0, SIZE, BATCH)[:steps]:
        leaves, _, finite = loop.run(trainer._leaves, data, row[None])
        assert finite
        trainer._leaves = leaves
    trainer.place = data_module.Place(0, steps * BATCH)
    return trainer.state()


@modes
@pytest.mark.parametrize("where", ["xs", "ys"])
def test_a_nan_stops_the_run_at_its_step(
    where, backend, dispatches, make, data, assert_same
):
    trainer = force(make("deep_mlp", backend), dispatches)
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

    by_hand = force(make("deep_mlp", backend), dispatches)
    expected = last_good(by_hand, tuple(map(jnp.asarray, data)), good)
    assert_same(trainer.state(), expected)
    assert expected.step == good
    assert expected.rng["position"] == good * BATCH


def test_the_run_goes_on_from_the_last_good_state(make, data):
    """Once the data is mended, it ends as if nothing had been wrong."""
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


@modes
def test_a_replay_that_comes_out_finite_counts(
    dispatches, make, data, monkeypatch, assert_same
):
    """As on a device that does not compute the same twice."""
    whole = force(make("deep_mlp", "reference"), dispatches)
    expected = whole.fit(*data, epochs=1, batch_size=BATCH)

    trainer = force(make("deep_mlp", "reference"), dispatches)
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


@modes
def test_an_update_to_infinity_stops_the_run_before_it(
    backend, dispatches, make, data, assert_same
):
    """The loss of the first step is fine, its update is not."""
    trainer = make("deep_mlp", backend, optimizer=optax.sgd(1e308))
    force(trainer, dispatches)
    before = trainer.state()
    with pytest.raises(
        NonFiniteLossError,
        match=r"^step 1: got non-finite values in the updated model, "
        r"expected finite values\. The trainer holds the state after step 0",
    ):
        trainer.fit(data.xs * 1e3, data.ys * 1e3, epochs=1, batch_size=BATCH)
    assert_same(trainer.state(), before)


def test_a_run_that_diverges_stops_where_it_does(backend, make, data):
    """A learning rate so high that the loss overflows after some steps."""
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


@pytest.mark.parametrize("option", ["epochs", "batch_size"])
def test_settings_are_whole_numbers(option, make):
    spec = make("deep_mlp", "reference").spec
    # Unwrapped, because beartype would be first to complain.
    check = inspect.unwrap(checks.check_fit)
    settings = {"epochs": 1, "batch_size": 4, option: 2.5}
    with pytest.raises(
        BatchError, match=f"^{option}: got 2.5, expected a whole number. Ch"
    ):
        check(spec, 8, **settings)


def test_load_takes_a_file(make, tmp_path, assert_same):
    trainer = make("deep_mlp", "flax", seed=3)
    trainer.save(tmp_path / "run")
    other = make("deep_mlp", "equinox").load(tmp_path / "run")
    assert_same(other.state(), trainer.state())
