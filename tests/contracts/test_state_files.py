"""Files of a State: complete, verified, and refused when damaged."""

import dataclasses
import hashlib
import json
import os
import pathlib
import random
import re
import resource
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import safetensors.numpy

from common import State
from common.errors import StateError
from tests.conftest import exhaustive_but

USAGE = resource.RUSAGE_SELF


@pytest.fixture
def state() -> State:
    """A State that has an array in every group."""
    rng = np.random.default_rng(0)
    return State(
        params={"head.weight": rng.normal(size=(4, 3))},
        buffers={"norm.count": np.array([7], np.int32)},
        opt={"optimizer.0.mu.head.weight": rng.normal(size=(4, 3))},
        rng={"key": np.array([0, 3], np.uint32)},
        step=np.array(5, np.int32),
        constants={"mask": np.array([True, False])},
    )


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


def test_a_file_of_the_first_format_is_read(
    backend, make, fill, assert_same, tmp_path
):
    """Such a file has no digests, and the oldest have no constants."""
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


def test_saving_changes_nothing(state, assert_same, tmp_path):
    copy = State.from_flat({k: x.copy() for k, x in state.flat().items()})
    state.save(tmp_path / "run.safetensors", {})
    assert_same(state, copy)


def test_arrays_of_any_memory_order_are_written_right(state, tmp_path):
    x = np.asfortranarray(state.params["head.weight"])
    assert not x.flags.c_contiguous
    state = dataclasses.replace(state, params={"head.weight": x})
    state.save(tmp_path / "run", {})
    read, _ = State.read(tmp_path / "run")
    assert np.array_equal(read.params["head.weight"], x)


def test_a_file_is_replaced_whole(state, tmp_path):
    path = tmp_path / "run.safetensors"
    state.save(path, {})
    state.save(path, {"number": 2})
    assert State.read(path)[1] == {"number": 2}
    assert os.listdir(tmp_path) == [path.name]


def test_the_header_has_the_digest_of_every_array(state, tmp_path):
    path = tmp_path / "run.safetensors"
    state.save(path, {})
    with safetensors.safe_open(path, framework="numpy") as file:
        digests = json.loads(file.metadata()["sha256"])
    assert digests == {
        name: hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()
        for name, x in state.flat().items()
    }


# --- damaged ----------------------------------------------------------------


@pytest.fixture
def path(state, tmp_path) -> pathlib.Path:
    """A file whose header has text that an escape could hide a change in."""
    path = tmp_path / "run.safetensors"
    state.save(path, {"optimizer": "caf\u00e9", "digest": "0" * 64})
    assert State.read(path)[1]["digest"] == "0" * 64
    return path


@pytest.mark.parametrize("count", exhaustive_but([1000, 10_000], 1000))
def test_every_flipped_bit_is_noticed(count, path):
    data = path.read_bytes()
    bits = random.Random(0).sample(range(8 * len(data)), count)
    # Those of the length, of the digest and of the last byte in any case.
    digest = data.index(b'"digest":"')
    bits += [*range(64), *range(8 * digest, 8 * digest + 640)]
    bits += [8 * len(data) - 1]
    accepted = []
    for bit in bits:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            State.read(path)
            accepted.append(bit)
        except StateError as error:
            assert str(error).startswith(f"state file {str(path)!r}: got ")
    assert accepted == []


def test_every_truncation_is_noticed(path):
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(StateError, match="^state file .+: got bytes "):
            State.read(path)
    path.write_bytes(data + b"0")
    with pytest.raises(StateError, match="^state file .+: got bytes "):
        State.read(path)


def test_a_file_without_digests_would_hide_flipped_bits(state, path):
    """What the digests are for: the first format accepts most changes."""
    header = {"format": "eqx-vs-nnx/1"}
    data = safetensors.numpy.save(state.flat(), metadata=header)
    damaged = bytearray(data)
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    assert isinstance(State.read(path)[0], State)


def test_the_damaged_array_is_named(path):
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(StateError) as caught:
        State.read(path)
    (name,) = (
        name
        for name, entry in json.loads(
            data[8 : 8 + int.from_bytes(data[:8], "little")]
        ).items()
        if name != "__metadata__"
        and entry["data_offsets"][0]
        <= len(data) - 100 - 8 - int.from_bytes(data[:8], "little")
        < entry["data_offsets"][1]
    )
    assert str(caught.value) == (
        f"state file {str(path)!r}: got changed bytes in {name}, expected "
        "what `Trainer.save` wrote. The file was damaged since; use a copy."
    )


# Saves in a loop, in children that are killed at random times.
KILLED = """
import os, random, signal, sys, time
import numpy as np
from common.state import State

path, count = sys.argv[1], int(sys.argv[2])
draw = random.Random(0)
state = State.from_flat({"params.w": np.zeros(20_000), "step": np.int32(0)})
start = time.perf_counter()
for _ in range(5):
    state.save(path, {"number": 0})
one_save = (time.perf_counter() - start) / 5
seen = set()
for _ in range(count):
    child = os.fork()
    if child == 0:
        number = max(seen, default=0)
        while True:
            number += 1
            state.save(path, {"number": number})
    time.sleep(draw.uniform(0, 4 * one_save))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    seen.add(State.read(path)[1]["number"])
print(len(seen), len(os.listdir(os.path.dirname(path))))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("count", exhaustive_but([200, 1000], 200))
def test_a_killed_process_leaves_a_whole_file(count, tmp_path):
    path = tmp_path / "run.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(count)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    different, files = map(int, done.stdout.split())
    # Many were killed after a file was replaced, and many while one was
    # written: a temporary file stays behind.
    assert different > count / 10
    assert 1 < files <= count + 1


# --- hostile ----------------------------------------------------------------


def bytes_of(header: dict | bytes, size: int = 0) -> bytes:
    """Returns a safetensors file with this header and so many zeros."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


OURS = {"__metadata__": {"format": "eqx-vs-nnx/1"}}
STEP = entry("I32", [], 0, 4)
WEIGHT = entry("F32", [1], 4, 8)
HOSTILE = {
    "empty": b"",
    "huge header": (2**62).to_bytes(8, "little") + bytes(1000),
    "4 GB claimed": bytes_of(OURS | {"step": entry("F32", [2**30], 0, 2**32)}),
    "overflowing shape": bytes_of(
        OURS | {"step": entry("F64", [2**62, 2**62], 0, 8)}, 8
    ),
    "same name twice": bytes_of(
        b'{"__metadata__":{"format":"eqx-vs-nnx/1"},'
        b'"step":{"dtype":"I32","shape":[],"data_offsets":[0,4]},'
        b'"step":{"dtype":"I32","shape":[],"data_offsets":[4,8]}}',
        8,
    ),
    "path in a name": bytes_of(
        OURS | {"step": STEP, "../../etc/passwd": WEIGHT}, 8
    ),
    "control characters in a name": bytes_of(
        OURS | {"step": STEP, "params.\x1b[2J": WEIGHT}, 8
    ),
    "negative step": bytes_of(OURS | {"step": STEP}) + b"\xff" * 4,
    "step that is a vector": bytes_of(
        OURS | {"step": entry("I32", [1], 0, 4)}, 4
    ),
    "NaN as the epoch": bytes_of(OURS | {"step": STEP, "rng.epoch": WEIGHT}, 4)
    + b"\x00\x00\xc0\x7f",
    "booleans that are neither": bytes_of(
        OURS | {"step": STEP, "constants.mask": entry("BOOL", [2], 4, 6)}, 5
    )
    + b"\x02",
    "unknown dtype": bytes_of(OURS | {"step": entry("X32", [], 0, 4)}, 4),
    "dtype that NumPy lacks": bytes_of(
        OURS | {"step": STEP, "params.w": entry("F4", [8], 4, 8)}, 8
    ),
    "no step": bytes_of(OURS | {"params.w": entry("F32", [1], 0, 4)}, 4),
    "meta is not JSON": bytes_of(
        {"__metadata__": OURS["__metadata__"] | {"meta": "{"}, "step": STEP}, 4
    ),
    "meta is nested deeply": safetensors.numpy.save(
        {"step": np.zeros(())},
        metadata={"format": "eqx-vs-nnx/1", "meta": "[" * 100_000},
    ),
    "meta is a list": safetensors.numpy.save(
        {"step": np.zeros(())},
        metadata={"format": "eqx-vs-nnx/1", "meta": "[]"},
    ),
    "another project's": safetensors.numpy.save({"w": np.zeros(3)}),
    "a later format": safetensors.numpy.save(
        {"w": np.zeros(3)}, metadata={"format": "eqx-vs-nnx/9"}
    ),
    "a pickle": b"\x80\x04\x95" + b"cos\nsystem\n(S'true'\ntR." * 50,
    "deeply nested": bytes_of(b"[" * 100_000),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_refused_quickly(data, tmp_path):
    path = tmp_path / "run.safetensors"
    path.write_bytes(data)
    start, before = time.perf_counter(), resource.getrusage(USAGE).ru_maxrss
    with pytest.raises(StateError) as caught:
        State.read(path)
    message = str(caught.value)
    assert message.startswith(f"state file {str(path)!r}: got ")
    assert re.search(r", expected .+\. [A-Z].+\.$", message)
    assert time.perf_counter() - start < 1
    assert resource.getrusage(USAGE).ru_maxrss - before < 100_000  # kB


def test_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(
        StateError,
        match="got a folder without checkpoints, expected one that",
    ):
        State.read(tmp_path)
    with pytest.raises(FileNotFoundError):
        State.read(tmp_path / "nowhere")
