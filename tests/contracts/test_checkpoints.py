"""Checkpoints: whole, verified, and refused when damaged."""

import gc
import hashlib
import json
import os
import pathlib
import random
import shutil
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import State, checkpoint_writer, checkpoints, digests
from common.errors import StateError

# Orbax leaves coroutines behind when it meets a damaged checkpoint.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)

ARRAYS = {
    "params.a/../b.weight": np.arange(12.0).reshape(4, 3),
    "params.half": np.asarray(jnp.ones(3, jnp.bfloat16)),
    "params.none": np.zeros((0, 3), np.float32),
    "constants.mask": np.array([True, False]),
    "constants.nan": np.array([np.nan, -np.inf]),
    "rng.key": np.array([0, 3], np.uint32),
    "step": np.array(5, np.int32),
}


@pytest.fixture(scope="module", autouse=True)
def no_coroutine_is_left():
    """Collects them here, where they are ignored, and not in another test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("run")
    writer = checkpoint_writer.Writer(folder, keep=2)
    for step in (3, 4, 10):
        writer.write(step, ARRAYS, {"spec": "caf\u00e9", "number": step})
    writer.close()
    return folder


@pytest.fixture
def folder(written, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(written, tmp_path / "run"))


def test_the_newest_checkpoint_is_read(folder):
    assert checkpoints.steps(folder) == [4, 10]
    found = checkpoints.read(folder)
    assert found.path == folder / "10"
    assert found.meta == {"spec": "caf\u00e9", "number": 10}
    assert found.arrays.keys() == ARRAYS.keys()
    for name, x in ARRAYS.items():
        y = found.arrays[name]
        assert (y.dtype, y.shape) == (x.dtype, x.shape), name
        assert y.tobytes() == x.tobytes(), name
    assert State.read(folder / "4")[1]["number"] == 4
    assert checkpoints.read(folder, arrays=False).arrays == {}


def test_a_checkpoint_that_was_not_completed_does_not_count(folder):
    partial = folder / f"11{checkpoints.TEMPORARY}-7"
    shutil.copytree(folder / "10", partial)
    assert checkpoints.find(folder) == folder / "10"
    assert checkpoints.strangers(folder) == []
    (folder / ".hidden").touch()
    (folder / "12").touch()
    (folder / "notes.txt").touch()
    assert checkpoints.strangers(folder) == ["12", "notes.txt"]


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(p for p in (folder / "10").rglob("*") if p.is_file())


def accepted(folder: pathlib.Path, file: pathlib.Path) -> bool:
    """Tells whether a damaged checkpoint is read, and then as it was."""
    try:
        found = checkpoints.read(folder)
    except StateError as error:
        assert str(error).startswith(f"checkpoint {str(folder / '10')!r}: got")
        return False
    assert found.meta == {"spec": "caf\u00e9", "number": 10}, file
    for name, x in ARRAYS.items():
        assert found.arrays[name].tobytes() == x.tobytes(), (file, name)
    return True


@pytest.mark.parametrize(
    "count", [12, pytest.param(100, marks=pytest.mark.exhaustive)]
)
def test_no_flipped_bit_changes_what_is_read(count, folder):
    """Also not one in the files that Orbax keeps for itself."""
    draw = random.Random(0)
    files = [file for file in files_of(folder) if file.stat().st_size]
    refused = 0
    for number in range(count):
        file = files[number % len(files)]
        data = file.read_bytes()
        bit = draw.randrange(8 * len(data))
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        refused += not accepted(folder, file)
        file.write_bytes(data)
    assert refused > count / 10
    assert accepted(folder, files[0])


def test_every_file_that_is_missing_or_cut_is_noticed(folder):
    refused = set()
    for file in files_of(folder):
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])
        if not accepted(folder, file):
            refused.add(file.parent.name)
        file.unlink()
        accepted(folder, file)
        file.write_bytes(data)
    assert {"state", "digests", "manifest", "d"} <= refused


def rewrite(folder: pathlib.Path, change) -> None:
    """Changes a manifest, and its digest with it."""
    path = folder / "10" / checkpoints.MANIFEST / "metadata"
    manifest = json.loads(path.read_text())
    del manifest["digest"]
    change(manifest)
    manifest["digest"] = checkpoints._digest(manifest)
    path.write_text(json.dumps(manifest))


def _no_process(manifest):
    manifest["processes"] = 0


def _other_process(manifest):
    manifest["processes"] = 2


def _huge(manifest):
    manifest["arrays"]["params.none"]["shape"] = [2**30]


def _other_format(manifest):
    manifest["format"] = "eqx-vs-nnx/9"


def _no_object(manifest):
    manifest["meta"] = [1]


def _objects(manifest):
    manifest["arrays"]["step"]["dtype"] = "object"


def _fewer(manifest):
    del manifest["arrays"]["step"]


def _other_type(manifest):
    manifest["arrays"]["step"]["dtype"] = "int64"


HOSTILE = {
    _no_process: r"cannot be read \(the digests are not those of the manif",
    _other_process: r"cannot be read \(.+No such file.+1\.json'\), expected",
    _huge: r"got a manifest of 4294967\d+ bytes in \d+ bytes, expected",
    _other_format: r"cannot be read \(the format is 'eqx-vs-nnx/9'\)",
    _no_object: r"cannot be read \(meta is no JSON object\)",
    _objects: r"cannot be read \(the dtype is 'object'\)",
    _fewer: r"cannot be read \(the digests are not those of the manifest\)",
    _other_type: r"cannot be read \(the arrays are not those of the manifest",
}


@pytest.mark.parametrize("change", HOSTILE)
def test_a_hostile_manifest_is_refused(change, folder):
    rewrite(folder, change)
    began = time.perf_counter()
    with pytest.raises(StateError, match=HOSTILE[change]):
        checkpoints.read(folder)
    assert time.perf_counter() - began < 1


def test_another_digest_is_refused(folder):
    path = folder / "10" / checkpoints.DIGESTS / digests.file_name(0)
    text = path.read_text()
    sums = json.loads(text)["values"]
    sums["step"] ^= 1
    path.write_text(json.dumps(digests.sign(sums)))
    with pytest.raises(StateError, match="got changed bytes in step, expect"):
        checkpoints.read(folder)
    path.write_text(text.replace('"step": ', '"step": 1'))
    with pytest.raises(StateError, match=r"'0\.json' does not have its SHA"):
        checkpoints.read(folder)


def test_the_first_format_is_read(folder):
    """It has the SHA-256 of each array in the manifest, and no digests."""
    sums = {
        name: hashlib.sha256(x.tobytes()).hexdigest()
        for name, x in ARRAYS.items()
    }

    def to_first(manifest):
        manifest["format"] = checkpoints.FIRST
        manifest.pop("processes", None)
        for name, entry in manifest["arrays"].items():
            entry["sha256"] = sums[name]

    shutil.rmtree(folder / "10" / checkpoints.DIGESTS)
    rewrite(folder, to_first)
    assert accepted(folder, folder)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shardings = {"constants.nan": device, "params.none": device}
    found = checkpoints.read(folder, shardings=shardings).arrays
    for name, x in found.items():
        assert isinstance(x, jax.Array) == (name in shardings)
        assert np.asarray(x).tobytes() == ARRAYS[name].tobytes()
    sums["step"] = "0" * 64
    rewrite(folder, to_first)
    with pytest.raises(StateError, match="got changed bytes in step, expect"):
        checkpoints.read(folder)


def test_a_manifest_without_its_digest_is_refused(folder):
    path = folder / "10" / checkpoints.MANIFEST / "metadata"
    path.write_text(path.read_text().replace('"number": 10', '"number": 11'))
    with pytest.raises(StateError, match="does not have its digest"):
        checkpoints.read(folder)


def test_a_folder_without_checkpoints(tmp_path):
    for folder in (tmp_path, tmp_path / "3"):
        folder.mkdir(exist_ok=True)
        (tmp_path / "3" / checkpoints.ARRAYS).mkdir(
            parents=True, exist_ok=True
        )
    with pytest.raises(StateError, match="got something that cannot be read"):
        State.read(tmp_path)
    with pytest.raises(StateError, match="without checkpoints, expected one"):
        State.read(tmp_path / "3")


def test_a_folder_that_cannot_be_written_to(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    writer = checkpoint_writer.Writer(folder, keep=None)
    shutil.rmtree(folder)
    folder.write_text("in the way")
    with pytest.raises(OSError, match=f"^checkpoint folder '{folder}': got "):
        writer.write(1, ARRAYS, {})
        writer.close()
    assert os.listdir(tmp_path) == ["run"]
    # A thread that waits for the folder would keep the process from ending.
    assert "digests" not in {t.name for t in threading.enumerate()}
