"""Checkpoints of arrays that are split over devices and processes."""

import json
import pathlib
import re
import shutil
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from common import checkpoint_writer, checkpoints, digests
from common.errors import StateError
from tests import topologies

ROWS, COLUMNS, EVERYWHERE = P("data"), P(None, "data"), P()
ARRAYS = {
    "params.rows": np.arange(48.0).reshape(8, 6),
    "params.columns": np.arange(24.0).reshape(3, 8) ** 3,
    "opt.half": np.arange(16, dtype=jnp.bfloat16) / 3,
    "constants.mask": np.arange(8) % 3 == 0,
    "constants.none": np.zeros((0, 3), np.float32),
    "buffers.mean": np.array([np.nan, -0.0, np.inf]),
    "rng.key": np.array([0, 3], np.uint32),
    "step": np.array(4, np.int32),
}
SPECS = {
    "params.rows": ROWS,
    "params.columns": COLUMNS,
    "opt.half": ROWS,
    "constants.mask": ROWS,
    "buffers.mean": EVERYWHERE,
    "rng.key": EVERYWHERE,
    "step": EVERYWHERE,
}
OTHERS = {**SPECS, "params.rows": EVERYWHERE, "buffers.mean": EVERYWHERE}
"""Another way to split them."""


def mesh_of_all():
    shape = (jax.device_count(),)
    return jax.make_mesh(shape, ("data",), axis_types=(AxisType.Auto,))


def shardings(specs):
    mesh = mesh_of_all()
    return {name: NamedSharding(mesh, spec) for name, spec in specs.items()}


def split_arrays():
    """Returns the arrays over all devices, some of them not of JAX."""
    found = dict(ARRAYS)
    for name, sharding in shardings(SPECS).items():
        x = ARRAYS[name]
        if name != "step":
            found[name] = jax.make_array_from_callback(
                x.shape, sharding, x.__getitem__
            )
    return found


def gather(value):
    """Exchanges JSON values among all processes."""
    text = np.frombuffer(json.dumps(value).encode().ljust(4000), np.uint8)
    rows = multihost_utils.process_allgather(text).reshape(-1, 4000)
    return [json.loads(row.tobytes()) for row in rows]


def parts_of(arrays):
    """Returns what is on the devices of this process, and where."""
    return {
        name: [
            (str(s.index), np.asarray(s.data)) for s in x.addressable_shards
        ]
        for name, x in arrays.items()
        if isinstance(x, jax.Array)
    }


def message_of(call) -> tuple[str, float]:
    """Returns the error of a call, and how long it took."""
    began = time.perf_counter()
    try:
        call()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return text, time.perf_counter() - began
    return "", time.perf_counter() - began


def write(folder: str, shared: bool) -> None:
    """Writes checkpoints while the arrays are donated and replaced."""
    writer = checkpoint_writer.Writer(folder, keep=2, shared=shared)
    arrays = split_arrays()
    double = jax.jit(lambda x: x + x, donate_argnums=0)
    for step in (3, 4, 10):
        writer.write(step, arrays, {"number": step})
        # Takes the memory of the array as soon as nothing else holds it.
        for _ in range(3):
            arrays["params.rows"] = double(arrays["params.rows"])
    writer.close()


def write_and_read(folder: str, others: str) -> dict[str, object]:
    """What each of several processes does."""
    write(folder, shared=True)
    steps = checkpoints.steps(folder)
    first = jax.process_index() == 0
    path = pathlib.Path(folder, "10")
    options = {"shardings": shardings(OTHERS), "gather": gather}
    read = checkpoints.read(path, **options).arrays
    foreign = checkpoints.read(others, **options).arrays
    copy = pathlib.Path(folder).parent / "damaged"
    if first:
        shutil.copytree(path, copy)
        flip_a_sum(copy)
    multihost_utils.sync_global_devices("damaged")
    return {
        "steps": steps,
        "read": parts_of(read),
        "foreign": parts_of(foreign),
        "host": checkpoints.read(path).arrays,
        "damaged": message_of(lambda: checkpoints.read(copy, **options)),
        "missing": message_of(
            lambda: checkpoints.read(path if first else "nowhere", **options)
        ),
        "alone": checkpoints.read(path).meta if first else None,
    }


def read_on_devices(folder: str) -> dict[str, object]:
    """What a process with several devices does."""
    arrays = checkpoints.read(folder, shardings=shardings(OTHERS)).arrays
    with jax.enable_x64(False):
        again = checkpoints.read(folder, shardings=shardings(SPECS)).arrays
    return {
        "arrays": {k: np.asarray(x) for k, x in arrays.items()},
        "again": {k: np.asarray(x) for k, x in again.items()},
        "devices": {
            k: len(x.sharding.device_set)
            for k, x in arrays.items()
            if isinstance(x, jax.Array)
        },
        "parts": parts_of(again),
    }


def flip_a_sum(path: pathlib.Path) -> None:
    """Changes the digest of one array in the file of the last process."""
    *_, file = sorted((path / checkpoints.DIGESTS).glob("*.json"))
    sums = json.loads(file.read_text())["values"]
    sums["params.rows"] ^= 2**63
    file.write_text(json.dumps(digests.sign(sums)))


def assert_equal(actual, expected) -> None:
    assert actual.keys() == expected.keys()
    for name, x in expected.items():
        y = actual[name]
        assert (y.dtype, y.shape) == (x.dtype, x.shape), name
        assert y.tobytes() == x.tobytes(), name


def assert_parts(actual, arrays) -> None:
    """Asserts that each part of an array is where it belongs."""
    assert actual
    for name, parts in actual.items():
        for index, x in parts:
            y = arrays[name][eval(index)]
            assert (x.dtype, x.tobytes()) == (y.dtype, y.tobytes()), name


def at_step(step: int) -> dict[str, np.ndarray]:
    """Returns the arrays that `write` writes for a step."""
    factor = {3: 1, 4: 8, 10: 64}[step]
    return {**ARRAYS, "params.rows": ARRAYS["params.rows"] * factor}


@pytest.fixture
def alone(tmp_path) -> pathlib.Path:
    """A folder of checkpoints that one device wrote."""
    folder = tmp_path / "alone"
    folder.mkdir()
    write(str(folder), shared=False)
    return folder


def test_arrays_on_devices_are_written_before_they_are_donated(alone):
    assert checkpoints.steps(alone) == [4, 10]
    for step in (4, 10):
        found = checkpoints.read(alone / str(step))
        assert_equal(found.arrays, at_step(step))
        assert found.meta == {"number": step}


def test_no_memory_is_reused_while_it_is_written(tmp_path, monkeypatch):
    """Training goes on, with donated arrays, before the write is over."""
    written = threading.Event()
    total = digests.total

    def late_total(parts):
        assert written.wait(60)
        return total(parts)

    monkeypatch.setattr(digests, "total", late_total)
    double = jax.jit(lambda x: x + x, donate_argnums=0)
    x = jnp.arange(1000.0) + 0
    place = x.unsafe_buffer_pointer()
    writer = checkpoint_writer.Writer(tmp_path, keep=None)
    writer.write(1, {"x": x}, {})
    y = double(x)
    assert y.unsafe_buffer_pointer() != place
    # Without a write, the step does take the memory of its input.
    place = y.unsafe_buffer_pointer()
    y = double(y)
    assert y.unsafe_buffer_pointer() == place
    assert not checkpoints.steps(tmp_path)
    written.set()
    writer.close()
    found = checkpoints.read(tmp_path).arrays["x"]
    assert np.array_equal(found, np.arange(1000.0))


def test_arrays_are_read_onto_a_device(alone):
    found = checkpoints.read(alone, shardings=shardings(SPECS)).arrays
    assert_equal({k: np.asarray(x) for k, x in found.items()}, at_step(10))
    kinds = {k for k, x in found.items() if isinstance(x, jax.Array)}
    assert kinds == SPECS.keys()
    flip_a_sum(alone / "10")
    with pytest.raises(StateError, match=r"changed bytes in params\.rows, ex"):
        checkpoints.read(alone, shardings=shardings(SPECS))


@pytest.mark.exhaustive
def test_processes_write_together_and_any_number_of_devices_reads(
    tmp_path, alone
):
    folder = tmp_path / "shared"
    folder.mkdir()
    both = topologies.run(
        write_and_read, str(folder), str(alone), processes=2, devices=2
    )
    for found in both:
        assert found["steps"] == [4, 10]
        assert_equal(found["host"], at_step(10))
        assert_parts(found["read"], at_step(10))
        assert_parts(found["foreign"], at_step(10))
        assert len(found["read"]["params.columns"]) == 2
        text, seconds = found["damaged"]
        assert "got changed bytes in params.rows, expected" in text
        assert seconds < 5
    assert both[0]["alone"] == {"number": 10}
    # The file that only process 1 cannot read is named in both.
    for found in both:
        text, seconds = found["missing"]
        assert "nowhere" in text
        assert seconds < 5
    assert re.fullmatch(
        r"StateError: checkpoint '.+10' in process 1: got an error, expected "
        r"none\. It raised this: .+",
        both[0]["missing"][0],
    )
    # One device, and eight devices of one process.
    for step in (4, 10):
        found = checkpoints.read(folder / str(step))
        assert_equal(found.arrays, at_step(step))
    [found] = topologies.run(read_on_devices, str(folder), devices=8)
    assert_equal(found["arrays"], at_step(10))
    assert_equal(found["again"], at_step(10))
    assert set(found["devices"].values()) == {8}
    assert_parts(found["parts"], at_step(10))
