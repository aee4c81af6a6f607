"""Leaves that are loaded in groups, each of which replaces the old ones."""

import weakref

import numpy as np
import pytest

from common import build
from common.registry import backends
from common.training import streaming
from tests import topologies
from tests.conftest import exhaustive_but


@pytest.fixture
def small_groups(monkeypatch):
    """Loads in groups of 150 bytes at most, or of one leaf."""
    load_leaves = streaming.load_leaves

    def load(*arguments):
        load_leaves(*arguments, small=150)

    monkeypatch.setattr(streaming, "SMALL", 0)
    monkeypatch.setattr(streaming, "load_leaves", load)


@pytest.fixture
def held(monkeypatch):
    """What was held when the arrays of each group were read."""

    def watch(trainer):
        old = [weakref.ref(x) for x in trainer._leaves]
        size = sum(map(streaming.nbytes, trainer._leaves))
        found = []
        put_state = trainer.placement.put_state

        def put(flat):
            alive = [x for ref in old if (x := ref()) is not None]
            left = sum(map(streaming.nbytes, alive))
            read = sum(map(streaming.nbytes, flat.values()))
            found.append((left / size, read / size))
            return put_state(flat)

        monkeypatch.setattr(trainer.placement, "put_state", put)
        return found

    return watch


@pytest.mark.parametrize("backend", exhaustive_but(backends(), "equinox"))
def test_a_run_is_loaded_in_groups(
    backend, make, fill, assert_same, held, small_groups, tmp_path
):
    trainer = make("deep_mlp", backend)
    filled = fill(trainer.state())
    filled.save(tmp_path / "run.safetensors", {})
    found = held(trainer)
    assert_same(trainer.load(tmp_path / "run.safetensors").state(), filled)
    assert len(found) > 3
    # The old leaves go as the new ones come.
    alive = [left for left, _ in found]
    assert alive == sorted(alive, reverse=True) and alive[-1] < 0.5
    assert max(read for _, read in found) < 0.5
    assert_same(trainer.load(filled).state(), filled)


def test_one_program_would_hold_everything_at_once(make, fill, held, tmp_path):
    trainer = make("deep_mlp", "equinox")
    fill(trainer.state()).save(tmp_path / "run.safetensors", {})
    found = held(trainer)
    trainer.load(tmp_path / "run.safetensors")
    assert len(found) == 1 and min(found[0]) > 0.99


@pytest.mark.parametrize("backend", exhaustive_but(backends(), "equinox"))
def test_what_a_state_would_be_like(backend, make):
    trainer = make("deep_mlp", backend)
    described = trainer.described()
    described.require_like(trainer.state())
    assert all(x.strides == (0,) * x.ndim for x in described.params.values())


def test_a_run_that_does_not_fit_changes_nothing(
    make, assert_same, small_groups, tmp_path
):
    trainer = make("deep_mlp", "equinox")
    before = trainer.state()
    wrong = before.flat()
    wrong.pop(next(iter(wrong)))
    type(before).from_flat(wrong).save(tmp_path / "run.safetensors", {})
    with pytest.raises(ValueError, match="got nothing, expected float64"):
        trainer.load(tmp_path / "run.safetensors")
    assert_same(trainer.state(), before)


def test_an_error_says_that_some_leaves_are_new(
    make, monkeypatch, small_groups, tmp_path
):
    trainer = make("deep_mlp", "equinox")
    trainer.save(tmp_path / "run.safetensors")

    def fail(flat):
        raise MemoryError(f"no memory for {list(flat)}")

    monkeypatch.setattr(trainer.placement, "put_state", fail)
    with pytest.raises(MemoryError) as caught:
        trainer.load(tmp_path / "run.safetensors")
    assert "may hold some arrays of the file" in caught.value.__notes__[0]


def test_the_arrays_of_a_state_by_name(make):
    state = make("deep_mlp", "equinox").state()
    flat = streaming.Flat(state)
    assert list(flat) == list(state.flat()) and len(flat) == len(state.flat())
    for name, x in state.flat().items():
        assert np.array_equal(flat[name], x)


def load_on_a_mesh(path):
    """Returns the arrays of a run that was loaded in groups, sharded."""
    import jax

    streaming.SMALL = 0
    load_leaves = streaming.load_leaves

    def load(*arguments):
        load_leaves(*arguments, small=150)

    streaming.load_leaves = load
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    options = {"mesh": mesh, "shard": "fsdp", "dtype": "float64"}
    trainer = build("deep_mlp", backend="flax", size=8, depth=1, **options)
    before = [x.sharding for x in trainer._leaves]
    trainer.load(path)
    assert [x.sharding for x in trainer._leaves] == before
    return trainer.state().flat()


@pytest.mark.exhaustive
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_is_loaded_in_groups_onto_a_mesh(processes, fill, tmp_path):
    path = tmp_path / "run.safetensors"
    options = {"size": 8, "depth": 1, "dtype": "float64"}
    trainer = build("deep_mlp", backend="equinox", **options)
    trainer.load(fill(trainer.state())).save(path)
    found = topologies.run(
        load_on_a_mesh, path, processes=processes, devices=4 // processes
    )
    for flat in found:
        for name, x in trainer.state().flat().items():
            assert np.array_equal(flat[name], x), name
