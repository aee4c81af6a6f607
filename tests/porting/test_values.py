"""Tests of how the values of a port are checked and made: one at a time."""

import json
import tracemalloc
import weakref

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from common import tensors
from common.native import NativeModel
from common.porting import functions, port
from common.tensors import File, Stored, write_stored
from docs import measure_port
from tests.conftest import exhaustive_but
from tests.porting import pairs
from tests.porting.pairs import same

WIDTH = 128
"""At this width, the model of `measure_port` has a million parameters."""

TARGETS = {
    "equinox": measure_port.equinox_target,
    "flax": measure_port.flax_target,
}
SIZES = [2 * a * b for a, b in measure_port.shapes(WIDTH).values()]
LARGEST = 2 * measure_port.STACKED * WIDTH * WIDTH
SLACK = 2**19
"""Bytes of Python's own objects, and of the pieces that are looked at."""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file of a million parameters in bfloat16."""
    path = tmp_path_factory.mktemp("large") / "model.safetensors"
    measure_port.write(path, WIDTH)
    return path


def fill(path, library):
    return filling(path, library)()


def filling(path, library):
    """Returns a function that fills a target, which has been made."""
    target = TARGETS[library](WIDTH)
    return lambda: port(path, target, rules=measure_port.RULES[library])


@pytest.fixture
def mapped(monkeypatch):
    """The largest number of bytes that were mapped at the same time."""
    found = {"now": 0, "most": 0}
    view = File.view

    def counted(self, start, stop):
        data = view(self, start, stop)
        found["now"] += data.nbytes
        found["most"] = max(found.values())
        weakref.finalize(data, release, data.nbytes)
        return data

    def release(count):
        found["now"] -= count

    monkeypatch.setattr(File, "view", counted)
    return found


def peak_of(call):
    """Returns the largest memory of NumPy and Python during a call."""
    tracemalloc.start()
    try:
        result = call()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("library", exhaustive_but(TARGETS, "equinox"))
def test_the_target_and_one_layer_are_in_memory(library, path, mapped):
    fill(path, library)  # what is imported and cached
    mapped["most"] = 0
    peak, filled = peak_of(filling(path, library))
    stored = tensors.open_stored(path)
    assert mapped["most"] <= LARGEST
    assert sum(SIZES) < peak <= sum(SIZES) + LARGEST + SLACK
    square = np.asarray(stored["blocks.3.square.weight"])
    third = stored["deep.3.weight"]
    if library == "equinox":
        assert np.array_equal(filled.blocks[3].square.weight, square)
        assert np.array_equal(filled.deep.weight[3], third)
    else:
        assert np.array_equal(filled.blocks[3].square.kernel[...], square.T)
        assert np.array_equal(filled.deep.kernel[3], third.T)


def test_a_reader_that_reads_everything_first_is_found(
    path, mapped, monkeypatch
):
    def read_all(self, name):
        if not whole:
            whole.update({n: e.view() for n, e in self.entries.items()})
        return whole[name]

    whole = {}
    monkeypatch.setattr(Stored, "__getitem__", read_all)
    fill(path, "equinox")
    assert mapped["most"] >= sum(SIZES)

    def copy_all(self, name):
        if not whole:
            whole.update(
                {n: np.array(e.view()) for n, e in self.entries.items()}
            )
        return whole[name]

    whole.clear()
    monkeypatch.setattr(Stored, "__getitem__", copy_all)
    peak, _ = peak_of(filling(path, "equinox"))
    assert peak > sum(SIZES) + LARGEST + SLACK


@pytest.mark.exhaustive
@pytest.mark.parametrize(("library", "devices"), measure_port.CASES)
def test_a_billion_parameters(library, devices, tmp_path):
    """The time that it takes is in the documentation only."""
    path = tmp_path / "model.safetensors"
    try:
        measure_port.write(path, measure_port.WIDTH)
        cost = measure_port.run(path, library, devices)
    finally:
        path.unlink()
    assert cost["parameters"] > 1e9
    assert cost["memory"] <= cost["bytes"] + cost["largest"] + 2**26


def test_the_old_arrays_of_a_module_are_freed(source, tmp_path, monkeypatch):
    path = small(tmp_path / "model.safetensors", source)
    target = pairs.NnxMLP()
    old = {n: weakref.ref(x) for n, x in NativeModel(target).arrays().items()}
    alive = []

    def watched(*arguments):
        alive.append(sum(ref() is not None for ref in old.values()))
        return make(*arguments)

    make = functions.make
    monkeypatch.setattr(functions, "make", watched)
    monkeypatch.setattr(functions, "TOGETHER", 0)
    assert same(port(port(path, target), pairs.EqxMLP()), source)
    assert alive[:6] == [6, 5, 4, 3, 2, 1]
    assert not any(ref() is not None for ref in old.values())
    # A model is returned anew, so the old one is the caller's.
    target = pairs.EqxMLP()
    old = {n: weakref.ref(x) for n, x in NativeModel(target).arrays().items()}
    alive.clear()
    port(path, target)
    assert alive == [6] * 6


def test_an_interrupt_says_that_a_module_was_changed(
    source, tmp_path, monkeypatch
):
    def interrupt(*_):
        raise KeyboardInterrupt

    path = small(tmp_path / "model.safetensors", source)
    monkeypatch.setattr(functions, "make", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        port(path, pairs.NnxMLP())
    assert "and others are old" in caught.value.__notes__[0]
    with pytest.raises(KeyboardInterrupt) as caught:
        port(path, pairs.EqxMLP())
    assert not hasattr(caught.value, "__notes__")


# --- what is refused --------------------------------------------------------


@pytest.fixture
def source():
    return pairs.fill_equinox(pairs.EqxMLP())


def small(path, source, change=None):
    arrays = {n: np.array(x) for n, x in pairs.arrays(source).items()}
    write_stored(path, (change or dict)(arrays))
    return path


def test_names_are_missing_before_anything_is_read(
    source, tmp_path, monkeypatch
):
    def without_bias(arrays):
        del arrays["norm.bias"]
        return arrays

    path = small(tmp_path / "model.safetensors", source, without_bias)
    monkeypatch.delattr(tensors.Entry, "view")
    with pytest.raises(ValueError, match=r"target norm.bias \(4,\) float"):
        port(path, pairs.NnxMLP())


def test_a_truncated_file_leaves_the_target_alone(source, tmp_path):
    path = small(tmp_path / "model.safetensors", source)
    path.write_bytes(path.read_bytes()[:-1])
    target = pairs.NnxMLP()
    before = NativeModel(target).arrays()
    with pytest.raises(ValueError, match="that are not safetensors"):
        port(path, target)
    after = NativeModel(target).arrays()
    assert all(after[name] is x for name, x in before.items())


def test_nan_leaves_the_target_alone(source, tmp_path):
    def with_nan(arrays):
        arrays["layers.1.bias"][0] = np.nan
        return arrays

    path = small(tmp_path / "model.safetensors", source, with_nan)
    target = pairs.NnxMLP()
    before = NativeModel(target).arrays()
    with pytest.raises(ValueError, match=r"got NaN in \['layers.1.bias'\]"):
        port(path, target)
    after = NativeModel(target).arrays()
    assert all(after[name] is x for name, x in before.items())


def test_a_sharding_that_does_not_divide(source, monkeypatch):
    def fail(self, shape):
        raise ValueError(f"{shape} is odd")

    target = eqx.filter_eval_shape(pairs.EqxMLP)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def split(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    target = jax.tree.map(split, target)
    monkeypatch.setattr(type(sharding), "shard_shape", fail)
    with pytest.raises(ValueError, match="which does not divide it"):
        port(source, target)


# --- forms ------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    exhaustive_but(["bfloat16", "float16", "float8_e4m3fn"], "bfloat16"),
)
def test_narrow_floats_are_read_and_widened(dtype, source, tmp_path):
    dtype = jnp.dtype(dtype)

    def narrow(arrays):
        return {n: x.astype(dtype) for n, x in arrays.items()}

    path = small(tmp_path / "model.safetensors", source, narrow)
    want = jax.tree.map(lambda x: x.astype(dtype).astype(x.dtype), source)
    assert same(port(path, pairs.EqxMLP()), want)
    kept = port(path, eqx.filter_eval_shape(pairs.EqxMLP), dtype="source")
    assert kept.layers[0].weight.dtype == dtype
    module = port(path, nnx.eval_shape(pairs.NnxMLP), dtype="target")
    assert module.layers[0].kernel.dtype == jnp.float64


def test_an_index_of_several_files(source, tmp_path):
    arrays = {n: np.array(x) for n, x in pairs.arrays(source).items()}
    files = {n: f"{i % 2}.safetensors" for i, n in enumerate(arrays)}
    for file in set(files.values()):
        part = {n: x for n, x in arrays.items() if files[n] == file}
        write_stored(tmp_path / file, part)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    assert same(port(index, pairs.EqxMLP()), source)
    (tmp_path / "0.safetensors").unlink()
    with pytest.raises(ValueError, match="that are not safetensors"):
        port(index, pairs.EqxMLP())
