"""What crosses between backends: bit for bit, by name, whole or not at all."""

import jax
import numpy as np
import optax
import pytest

from common import State
from common.errors import StateError
from common.registry import backends

PAIRS = [(a, b) for a in backends() for b in backends()]
pairs = pytest.mark.parametrize(
    ("source", "target"), PAIRS, ids=[f"{a}-to-{b}" for a, b in PAIRS]
)


@pytest.fixture
def state(make, fill):
    """A filled State of a model that has a counter among its buffers."""
    return fill(make("deep_mlp", "reference", batch_norm="batch").state())


def test_repr_is_short_and_shows_no_array():
    """Every array at a prompt would fill the screen many times."""
    many = {f"w{k}": np.full(3, 2.0) for k in range(100)}
    counts = {"count": np.zeros(2, np.int32)}
    state = State(many, counts, {}, {}, np.int32(7))
    assert repr(state).splitlines() == [
        "State(step=7)",
        "  params    w0: float64[3], norm 3.46",
        *[f"            w{k}: float64[3], norm 3.46" for k in range(1, 8)],
        "            and 92 more",
        "  buffers   count: int32[2]",
    ]


# --- round trips ------------------------------------------------------------


@pairs
def test_round_trip(spec, source, target, make, fill, assert_same):
    first = make(spec, source)
    filled = fill(first.state())
    assert_same(first.load(filled).state(), filled)
    second = make(spec, target).load(first.state())
    assert_same(second.state(), filled)
    assert_same(make(spec, source).load(second.state()).state(), filled)


@pytest.mark.parametrize("batch_norm", ["ema", "batch", "standard", "torch"])
def test_round_trip_of_a_dialect(
    batch_norm, backend, dtype, make, fill, assert_same
):
    trainer = make("deep_mlp", backend, batch_norm=batch_norm, dtype=dtype)
    filled = fill(trainer.state())
    assert_same(trainer.load(filled).state(), filled)


def test_a_state_holds_all_that_a_run_is(model, backend, make):
    state = make(model, backend, optimizer=optax.adam(1e-3)).state()
    assert state.step == 0
    assert state.rng.keys() == {"key", "epoch", "position"}
    assert state.params and state.buffers
    moments = {f"optimizer.0.mu.{name}" for name in state.params}
    assert moments < state.opt.keys()


def test_dtypes(model, backend, dtype, make):
    for name, x in make(model, backend, dtype=dtype).state().flat().items():
        assert type(x) is np.ndarray, name
        if np.issubdtype(x.dtype, np.floating):
            assert x.dtype == dtype, name
        elif np.issubdtype(x.dtype, np.integer):
            want = "uint32" if name == "rng.key" else "int32"
            assert x.dtype == want, name
        else:
            assert name.endswith(".first_time") and x.dtype == np.bool_, name


def test_flat_has_an_inverse(state, assert_same):
    assert_same(State.from_flat(state.flat()), state)


def test_constants_and_keys_keep_their_dtype():
    arrays = {
        "params.weight": np.ones(2),
        "buffers.count": np.ones((), np.uint32),
        "constants.large": np.array([2**40, -1]),
        "constants.mask": np.array([True, False]),
        "rng.key": np.array([2**32 - 1, 0], np.uint32),
        "rng.model.dropout.key": np.array([2**32 - 1, 0], np.uint32),
        "rng.model.dropout.count": np.array(3),
        "step": np.array(4),
    }
    state = State.from_flat(arrays).numpy()
    assert {name: x.dtype.name for name, x in state.flat().items()} == {
        "params.weight": "float64",
        "buffers.count": "int32",
        "constants.large": "int64",
        "constants.mask": "bool",
        "rng.key": "uint32",
        "rng.model.dropout.key": "uint32",
        "rng.model.dropout.count": "int32",
        "step": "int32",
    }
    for name, x in state.flat().items():
        assert np.array_equal(x, arrays[name]), name
    assert state.model.keys() == {
        "weight", "count", "large", "mask", "dropout.key", "dropout.count",
    }  # fmt: skip


# --- copies -----------------------------------------------------------------


@pytest.fixture
def batch(make_batch, make):
    return make_batch(make("deep_mlp", "reference").spec)


def test_a_state_outlives_later_steps(backend, make, batch, assert_same):
    trainer = make("deep_mlp", backend)
    trainer.step(*batch)
    taken = trainer.state()
    copy = State.from_flat({k: x.copy() for k, x in taken.flat().items()})
    trainer.step(*batch)
    assert_same(taken, copy)
    assert not np.array_equal(
        trainer.state().params["head.weight"], copy.params["head.weight"]
    )


def test_writing_to_a_state_does_not_reach_the_trainer(
    backend, make, assert_same
):
    trainer = make("deep_mlp", backend)
    before, taken = trainer.state(), trainer.state()
    for x in taken.flat().values():
        x[...] = 1 - x
    assert_same(trainer.state(), before)


def test_what_was_loaded_is_neither_kept_nor_written(
    backend, make, batch, fill, assert_same
):
    trainer = make("deep_mlp", backend)
    given = fill(trainer.state())
    copy = State.from_flat({k: x.copy() for k, x in given.flat().items()})
    trainer.load(given)
    # A step is donated what the trainer holds, and may write over it.
    trainer.step(*batch)
    assert_same(given, copy)

    trainer.load(given)
    for x in given.flat().values():
        x[...] = 1 - x
    assert_same(trainer.state(), copy)


def test_jax_arrays_survive_their_load(backend, make, batch, fill):
    trainer = make("deep_mlp", backend)
    arrays = fill(trainer.state()).flat()
    given = State.from_flat({k: jax.numpy.array(x) for k, x in arrays.items()})
    trainer.load(given)
    trainer.step(*batch)
    for name, x in given.flat().items():
        assert np.array_equal(x, arrays[name]), name


def test_native_is_a_copy(backend, make, batch, assert_same):
    trainer = make("deep_mlp", backend)
    before, native = trainer.state(), trainer.native
    trainer.step(*batch)
    # The step was donated other arrays than these, which are alive and old.
    arrays, _ = trainer.backend.split(native)
    assert not any(x.is_deleted() for x in arrays.values())
    after = trainer.state()
    trainer.load(before)
    for name, x in arrays.items():
        now, _ = trainer.backend.split(trainer.native)
        if not jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key):
            assert np.array_equal(now[name], x), name
    assert after.step == 1


# --- bad states -------------------------------------------------------------


def replaced(state, path, value):
    return State.from_flat({**state.flat(), path: value})


BAD = {
    "missing": (
        lambda s: State.from_flat(
            {
                name: x
                for name, x in s.flat().items()
                if name != "params.head.weight"
            }
        ),
        r"state\['params\.head\.weight'\]: got nothing, "
        r"expected float64\[3,3\]",
    ),
    "extra": (
        lambda s: replaced(s, "buffers.norm.count", np.zeros(2, np.int32)),
        r"state\['buffers\.norm\.count'\]: got int32\[2\], expected nothing",
    ),
    "misshapen": (
        lambda s: replaced(s, "params.head.weight", np.zeros((3, 4))),
        r"state\['params\.head\.weight'\]: got float64\[3,4\], "
        r"expected float64\[3,3\]",
    ),
    "other_dtype": (
        lambda s: replaced(s, "params.head.bias", np.zeros(3, np.float32)),
        r"state\['params\.head\.bias'\]: got float32\[3\], "
        r"expected float64\[3\]",
    ),
    "other_optimizer": (
        lambda s: replaced(s, "opt.optimizer.0.extra", np.zeros(())),
        r"state\['opt\.optimizer\.0\.extra'\]: got float64\[\], "
        r"expected nothing",
    ),
    "no_place_in_the_data": (
        lambda s: State.from_flat(
            {k: x for k, x in s.flat().items() if k != "rng.position"}
        ),
        r"state\['rng\.position'\]: got nothing, expected int32\[\]",
    ),
}
FIX = (
    r"\. Load a State of the same spec, hyper-parameters, optimizer and "
    r"dtype\."
)


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_state_is_refused_whole(
    fault, backend, make, fill, compiles, assert_same
):
    spoil, message = BAD[fault]
    trainer = make("deep_mlp", backend, batch_norm="batch")
    before = trainer.state()
    bad = spoil(fill(before))
    with (
        compiles() as compiled,
        pytest.raises(StateError, match=f"^{message}{FIX}$"),
    ):
        trainer.load(bad)
    assert compiled == []
    assert_same(trainer.state(), before)


def test_every_bad_entry_is_named(state, make):
    trainer = make("deep_mlp", "reference", batch_norm="batch")
    bad = replaced(state, "params.head.weight", np.zeros(1))
    bad = replaced(bad, "params.head.bias", np.zeros(1))
    with pytest.raises(
        StateError, match=r"state\['params\.head\.bias'\].*; "
        r"state\['params\.head\.weight'\]",
    ):  # fmt: skip
        trainer.load(bad)


def test_values_may_be_plain_python(make, assert_same):
    trainer = make("deep_mlp", "reference")
    before = trainer.state()
    values = before.flat() | {
        "step": 5,
        "rng.epoch": 2,
        "params.head.bias": [1.0, 2.0, 3.0],
    }
    state = trainer.load(State.from_flat(values)).state()
    expected = replaced(before, "step", np.int32(5))
    expected = replaced(expected, "rng.epoch", np.int32(2))
    expected = replaced(expected, "params.head.bias", np.array([1.0, 2, 3]))
    assert_same(state, expected)
