"""Files of safetensors: mapped, verified and written array by array."""

import gc
import json
import pathlib

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from common import tensors
from common.tensors import INDEX, has_nan, open_stored, write_stored

FLOATS = [
    np.dtype(dtype)
    for dtype in (
        np.float16,
        np.float32,
        np.float64,
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e5m2,
        ml_dtypes.float8_e8m0fnu,
    )
]
ARRAYS = {
    f"layers.{i}.{dtype.name}": np.arange(1, 7).reshape(2, 3).astype(dtype)
    for i, dtype in enumerate(FLOATS)
} | {
    "mask": np.array([True, False, True]),
    "step": np.array(3, np.int32),
    "empty": np.zeros((0, 4), np.float32),
    "transposed": np.arange(12.0).reshape(3, 4).T,
}


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    path = tmp_path / "model.safetensors"
    write_stored(path, ARRAYS, {"author": "caf\u00e9"})
    return path


def check_same(got, expected):
    assert got.keys() == expected.keys()
    for name, x in expected.items():
        assert (got[name].dtype, got[name].shape) == (x.dtype, x.shape)
        assert got[name].tobytes() == x.tobytes(), name


def test_what_is_written_is_read(path):
    stored = open_stored(path)
    check_same(stored, ARRAYS)
    assert stored.metadata == {"author": "caf\u00e9"}
    check_same(stored.renamed({"a": "mask"}), {"a": ARRAYS["mask"]})


def test_the_files_are_those_of_safetensors(path, tmp_path):
    known = {
        name: x
        for name, x in ARRAYS.items()
        if x.dtype.itemsize > 1 or x.dtype == bool
    }
    write_stored(path, known)
    with safetensors.safe_open(path, framework="numpy") as file:
        check_same({n: file.get_tensor(n) for n in file.keys()}, known)
    other = tmp_path / "other.safetensors"
    # It writes the memory of an array, whatever its strides are.
    plain = {n: np.ascontiguousarray(x) for n, x in known.items()}
    safetensors.numpy.save_file(plain, other)
    check_same(open_stored(other), known | {"step": plain["step"]})
    for entry in open_stored(path).entries.values():
        assert entry.offset % entry.dtype.itemsize == 0


def mappings(path) -> int:
    """Returns how often a file is mapped into memory now (Linux)."""
    gc.collect()
    return pathlib.Path("/proc/self/maps").read_text().count(str(path))


@pytest.mark.skipif(not pathlib.Path("/proc/self/maps").exists(), reason="-")
def test_an_array_is_mapped_while_it_is_used(path):
    stored = open_stored(path)
    assert mappings(path) == 0
    view = stored["mask"]
    assert mappings(path) == 1
    with pytest.raises(ValueError, match="read-only"):
        view[0] = False
    del view
    assert mappings(path) == 0


def test_a_replaced_file_does_not_change_what_is_open(path):
    stored = open_stored(path)
    write_stored(path, {"mask": np.zeros(3, bool)})
    check_same(stored, ARRAYS)


def test_an_index_of_several_files(tmp_path):
    files = {"mask": "a.safetensors", "step": "b.safetensors"}
    for name, file in files.items():
        write_stored(tmp_path / file, {name: ARRAYS[name]})
    index = tmp_path / f"model{INDEX}"

    def opened(weight_map):
        index.write_text(json.dumps({"weight_map": weight_map}))
        return open_stored(index)

    stored = opened(files)
    check_same(stored, {name: ARRAYS[name] for name in files})
    with pytest.raises(ValueError, match=r"no arrays \['other'\]"):
        opened(files | {"other": "a.safetensors"})
    for wrong in ({"mask": "../a.safetensors"}, {"mask": 1}, None):
        with pytest.raises(ValueError, match="no file names of its folder"):
            opened(wrong)
    with pytest.raises(ValueError, match="got the arrays of several files"):
        list(stored.chunks())


def test_dtypes_that_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(TypeError, match="got the dtype complex128, expected"):
        write_stored(path, {"z": np.zeros(3, np.complex128)})
    assert not path.exists()
    header = b'{"w":{"dtype":"F4","shape":[8],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(TypeError, match="'w' has the dtype F4"):
        open_stored(path)


def test_a_file_is_written_with_one_array_on_the_host(tmp_path, monkeypatch):
    alive, most = set(), []

    class Counted:
        """Stands in for an array of a device."""

        shape, dtype = (4,), np.dtype(np.float32)

        def __array__(self, dtype=None, copy=None):
            alive.add(len(most))
            most.append(len(alive))
            return np.ones(4, np.float32)

    names = [f"w{i}" for i in range(5)]
    chunks = tensors.bytes_of({name: Counted() for name in names})
    for _ in chunks:
        alive.clear()
    assert most == [1] * 5
    alive.clear()
    list(tensors.bytes_of({name: Counted() for name in names}))
    assert max(most) == 5  # the fault: all of them at once


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_every_nan_is_found(dtype):
    values = np.array([np.nan, -np.nan, 1, 2, 4], dtype)
    if dtype.itemsize < 3:
        bits = np.arange(256**dtype.itemsize, dtype=f"u{dtype.itemsize}")
        values = bits.view(dtype)
    undefined = np.isnan(values)
    some = values[~undefined]
    assert not has_nan(some) and not has_nan(some[:0])
    for x in values[undefined][:: max(undefined.sum() // 20, 1)]:
        large = np.resize(some, (300, 1000))
        large[299, 7] = x
        for view in (large, large.T, large[:, ::7], np.array(x)):
            assert has_nan(view)
    assert not has_nan(np.arange(3))
