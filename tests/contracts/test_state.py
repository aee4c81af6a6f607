"""What crosses between backends: bit for bit, by name, whole or not at all."""

import json
import os
import pathlib

import jax
import numpy as np
import optax
import pytest
import safetensors.numpy

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


# --- files ------------------------------------------------------------------


def test_a_file_holds_the_state_and_how_to_build_it(
    model, backend, make, fill, assert_same, tmp_path
):
    trainer = make(model, backend, seed=3)
    filled = fill(trainer.state())
    trainer.load(filled).save(tmp_path / "run.safetensors")
    read, meta = State.read(tmp_path / "run.safetensors")
    assert_same(read, filled)
    assert meta["spec"] == model
    assert meta["seed"] == 3
    assert meta["dtype"] == "float64"
    assert meta["versions"]["jax"] == jax.__version__
    hyper_parameters = {
        # JSON has no tuples.
        name: tuple(value) if isinstance(value, list) else value
        for name, value in meta["hyper_parameters"].items()
    }
    again = make(meta["spec"], "reference", **hyper_parameters)
    assert_same(again.load(read).state(), filled)


def test_a_file_from_before_constants_is_read(
    backend, make, fill, assert_same, tmp_path
):
    """Such a file has four groups, and the same format in its header."""
    trainer = make("deep_mlp", backend)
    filled = fill(trainer.state())
    old = {
        name: x
        for name, x in filled.flat().items()
        if not name.startswith("constants.")
    }
    header = {"format": "eqx-vs-nnx/1", "meta": json.dumps({"spec": "x"})}
    path: pathlib.Path = tmp_path / "run.safetensors"
    path.write_bytes(safetensors.numpy.save(old, metadata=header))
    read, meta = State.read(path)
    assert (dict(read.constants), meta) == ({}, {"spec": "x"})
    assert_same(trainer.load(path).state(), filled)


def test_an_interrupted_save_leaves_the_old_file(
    state, monkeypatch, tmp_path, assert_same
):
    path = tmp_path / "run.safetensors"
    state.save(path, {"number": 1})

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        state.save(path, {"number": 2})
    monkeypatch.undo()

    assert os.listdir(tmp_path) == [path.name]
    read, meta = State.read(path)
    assert meta == {"number": 1}
    assert_same(read, state)


def test_a_file_is_replaced_whole(state, fill, assert_same, tmp_path):
    path = tmp_path / "run.safetensors"
    state.save(path, {})
    state.save(path, {"number": 2})
    assert State.read(path)[1] == {"number": 2}
    assert os.listdir(tmp_path) == [path.name]


def test_saving_changes_nothing(state, assert_same, tmp_path):
    copy = State.from_flat({k: x.copy() for k, x in state.flat().items()})
    state.save(tmp_path / "run.safetensors", {})
    assert_same(state, copy)


def test_arrays_of_any_memory_order_are_written_right(state, tmp_path):
    x = np.asfortranarray(state.params["head.weight"])
    assert not x.flags.c_contiguous
    replaced(state, "params.head.weight", x).save(tmp_path / "run", {})
    read, _ = State.read(tmp_path / "run")
    assert np.array_equal(read.params["head.weight"], x)


@pytest.mark.parametrize("length", [0, 4, 100, -1], ids=str)
def test_a_truncated_file_is_refused(state, length, tmp_path):
    path = tmp_path / "run.safetensors"
    state.save(path, {})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(
        StateError,
        match=r"^state file '.*run\.safetensors': got bytes that are not "
        r"safetensors \(.+\), expected a file that `Trainer\.save` wrote\. "
        r"Save the run again\.$",
    ):
        State.read(path)


FOREIGN = {
    "no_header": None,
    "other_header": {"format": "pt"},
    "later_format": {"format": "eqx-vs-nnx/2", "meta": json.dumps({})},
}


@pytest.mark.parametrize("header", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_file_is_refused(header, tmp_path):
    path: pathlib.Path = tmp_path / "model.safetensors"
    data = safetensors.numpy.save({"w": np.zeros(3)}, metadata=header)
    path.write_bytes(data)
    with pytest.raises(
        StateError,
        match=r"^state file '.*model\.safetensors': got format .+, expected "
        r"'eqx-vs-nnx/1'\. Write it with `Trainer\.save`\.$",
    ):
        State.read(path)


def test_a_missing_file_is_pythons_own_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        State.read(tmp_path / "nowhere")
