"""Folders of checkpoints, which Orbax writes whole or not at all.

Each checkpoint is a folder called by its step. It holds the arrays of a
State, the digests of these arrays, and a manifest with its own SHA-256.
Several processes may write one together, each its parts of the arrays. Any
number of processes and devices reads it.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from common import digests
from common.errors import StateError

FORMAT = "eqx-vs-nnx/checkpoint/2"
FIRST = "eqx-vs-nnx/checkpoint/1"
"""The formats that `read` reads. In the first, the manifest has the SHA-256
of every array."""

ARRAYS, DIGESTS, MANIFEST = "state", "digests", "manifest"
"""The parts of a checkpoint."""

TEMPORARY = ".orbax-checkpoint-tmp"
"""In the name of a checkpoint that is being written."""

ALLOWED = 2**26
RATIO = 1000
"""How many bytes a manifest may claim: this many, and this many times those
on the disk. Orbax compresses, but weights hardly become smaller."""


def steps(folder: str | os.PathLike[str]) -> list[int]:
    """Returns the steps of all checkpoints in a folder, in order."""
    path = pathlib.Path(folder)
    return sorted(
        int(entry.name)
        for entry in path.iterdir()
        if _is_step(entry.name) and entry.is_dir()
    )


def strangers(folder: str | os.PathLike[str]) -> list[str]:
    """Returns what is in a folder besides checkpoints and hidden files."""
    return sorted(
        entry.name
        for entry in pathlib.Path(folder).iterdir()
        if not (_is_step(entry.name) and entry.is_dir())
        and TEMPORARY not in entry.name
        and not entry.name.startswith(".")
    )


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the folder of one checkpoint."""
    return pathlib.Path(path, MANIFEST).is_dir()


def manifest(
    arrays: Mapping[str, Any], meta: Mapping[str, Any], processes: int
) -> dict[str, Any]:
    """Returns the manifest of a checkpoint, as JSON has it.

    Args:
        arrays: by name; only their types are recorded.
        meta: JSON values.
        processes: how many write the checkpoint.
    """
    values = {
        "format": FORMAT,
        "meta": dict(meta),
        "processes": processes,
        "arrays": {
            name: {"dtype": x.dtype.name, "shape": list(x.shape)}
            for name, x in arrays.items()
        },
    }
    return {**values, "digest": _digest(values)}


def _sha256(x: np.ndarray) -> str:
    return hashlib.sha256(np.asarray(x, order="C").tobytes()).hexdigest()


def _digest(manifest: Mapping[str, Any]) -> str:
    text = json.dumps(manifest, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


# --- reading ----------------------------------------------------------------


class Checkpoint(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        path: its folder.
        arrays: by name. Empty if only the manifest was read.
        meta: the JSON values that it was written with.
    """

    path: pathlib.Path
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


def find(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns a checkpoint, or the newest one in a folder of them.

    Raises:
        StateError: if there is none.
    """
    path = pathlib.Path(path)
    if is_checkpoint(path):
        return path
    found = steps(path)
    if not found:
        raise StateError(
            f"checkpoint folder {str(path)!r}: got a folder without "
            "checkpoints, expected one that `Trainer.fit` wrote, or a file "
            "that `Trainer.save` wrote. Pass the path that was given to "
            "`Trainer.fit`."
        )
    return path / str(found[-1])


def read(
    path: str | os.PathLike[str],
    arrays: bool = True,
    shardings: Mapping[str, Any] | None = None,
    gather: Callable[[Any], list[Any]] | None = None,
) -> Checkpoint:
    """Reads a checkpoint, or the newest one in a folder of them.

    Args:
        path: of the checkpoint, or of the folder.
        arrays: whether to read the arrays, and not the manifest alone.
        shardings: by name, of the arrays to read straight onto devices. Each
            process reads what its own devices need. The other arrays are
            read to the host.
        gather: returns the JSON values that all processes pass to it. It is
            needed if devices of several processes share the arrays. All of
            these processes call this function then.

    Raises:
        StateError: if it was damaged, or is none. If processes share the
            arrays, all of them raise.
    """
    loaded: _Loaded | Exception
    try:
        loaded = _load(find(path), arrays, shardings or {})
    except Exception as error:
        if gather is None:
            raise
        loaded = error
    mine: tuple[str | None, dict[str, int]] = str(loaded), {}
    if isinstance(loaded, _Loaded):
        mine = None, loaded.sums
    heard = [mine] if gather is None else gather(mine)
    if isinstance(loaded, Exception):
        raise loaded
    for process, (message, _) in enumerate(heard):
        if message is not None:
            raise StateError(
                f"checkpoint {str(path)!r} in process {process}: got an "
                f"error, expected none. It raised this: {message}"
            )
    totals = digests.add(sums for _, sums in heard)
    damaged = {k for k, x in loaded.expected.items() if totals.get(k, 0) != x}
    if damaged:
        what = f"checkpoint {str(loaded.checkpoint.path)!r}"
        raise _damaged(what, damaged)
    return loaded.checkpoint


class _Loaded(NamedTuple):
    """A checkpoint of which arrays on devices must still be verified.

    Attributes:
        checkpoint: what was read.
        expected: the digest of each of these arrays.
        sums: the sum over the parts of each that this process has.
    """

    checkpoint: Checkpoint
    expected: dict[str, int]
    sums: dict[str, int]


def _load(
    path: pathlib.Path, arrays: bool, shardings: Mapping[str, Any]
) -> _Loaded:
    """Reads a checkpoint, and verifies what is read to the host."""
    what = f"checkpoint {str(path)!r}"
    try:
        manifest = _restore_manifest(path)
        claims = _claims(manifest)
    except Exception as error:  # Orbax raises several types
        raise _unreadable(what, error) from error
    if not arrays:
        return _Loaded(Checkpoint(path, {}, manifest["meta"]), {}, {})
    on_disk = sum(x.stat().st_size for x in path.rglob("*") if x.is_file())
    claimed = sum(claim.nbytes for claim in claims.values())
    if claimed > ALLOWED + RATIO * on_disk:
        raise StateError(
            f"{what}: got a manifest of {claimed} bytes in {on_disk} bytes, "
            "expected what `Trainer.fit` wrote. Use another checkpoint."
        )
    is_first = manifest["format"] == FIRST
    try:
        expected = {} if is_first else _digests(path, manifest, claims)
        found = _restore(path, claims, {} if is_first else shardings)
    except Exception as error:
        raise _unreadable(what, error) from error
    if is_first:
        texts = {k: x["sha256"] for k, x in manifest["arrays"].items()}
        damaged = {k for k, x in found.items() if _sha256(x) != texts[k]}
        found = {
            k: _put(x, shardings[k]) if k in shardings else x
            for k, x in found.items()
        }
        sums, split = {}, set()
    else:
        sums = {
            name: digests.total(digests.parts_here(x, 0))
            for name, x in found.items()
        }
        split = {k for k, x in found.items() if not isinstance(x, np.ndarray)}
        damaged = {k for k in sums.keys() - split if sums[k] != expected[k]}
    if damaged:
        raise _damaged(what, damaged)
    return _Loaded(
        Checkpoint(path, found, manifest["meta"]),
        {k: expected[k] for k in split},
        {k: sums[k] for k in split},
    )


class _Claim(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size


def _claims(manifest: Any) -> dict[str, _Claim]:
    """Verifies a manifest, and returns the types of its arrays."""
    unsigned = {k: x for k, x in manifest.items() if k != "digest"}
    if manifest["format"] not in (FIRST, FORMAT):
        raise ValueError(f"the format is {manifest['format']!r}")
    if _digest(unsigned) != manifest["digest"]:
        raise ValueError("the manifest does not have its digest")
    if not isinstance(manifest["meta"], dict):
        raise ValueError("meta is no JSON object")
    return {
        name: _Claim(_dtype(entry["dtype"]), tuple(map(int, entry["shape"])))
        for name, entry in manifest["arrays"].items()
    }


def _dtype(name: str) -> np.dtype:
    import jax.numpy as jnp  # knows bfloat16

    dtype = jnp.dtype(name)
    if dtype.hasobject:
        raise ValueError(f"the dtype is {name!r}")
    return dtype


def _digests(
    path: pathlib.Path,
    manifest: Mapping[str, Any],
    claims: Mapping[str, _Claim],
) -> dict[str, int]:
    """Returns the digest of each array, as it was written."""
    found = digests.read(path / DIGESTS, int(manifest["processes"]))
    wanted = {name for name, claim in claims.items() if claim.nbytes}
    if found.keys() != wanted:
        raise ValueError("the digests are not those of the manifest")
    return {name: found.get(name, 0) for name in claims}


def _restore_manifest(path: pathlib.Path) -> Any:
    return json.loads((path / MANIFEST / "metadata").read_text())


def _handler(ocp: Any) -> Any:
    """Returns Orbax's reader of arrays, which waits for no other process."""
    import jax

    index = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}
    )
    return ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)


def _restore(
    path: pathlib.Path,
    claims: Mapping[str, _Claim],
    shardings: Mapping[str, Any],
) -> dict[str, Any]:
    import jax
    import orbax.checkpoint as ocp  # slow to import

    wanted = {k: claim for k, claim in claims.items() if claim.nbytes}
    # The devices need not be those of the writer.
    how = {
        name: ocp.ArrayRestoreArgs(
            sharding=shardings[name], global_shape=claim.shape
        )
        if _divides(shardings.get(name), claim.shape)
        else ocp.RestoreArgs(restore_type=np.ndarray)
        for name, claim in wanted.items()
    }
    with jax.enable_x64(True):
        handler, folder = _handler(ocp), path.resolve() / ARRAYS
        metadata = handler.metadata(folder).tree
        types = {
            name: _Claim(np.dtype(x.dtype), tuple(x.shape))
            for name, x in metadata.items()
        }
        if types != wanted:
            raise ValueError("the arrays are not those of the manifest")
        arguments = ocp.args.PyTreeRestore(restore_args=how)
        restored = handler.restore(folder, args=arguments)
        found = {
            name: restored[name]
            if claim.nbytes
            else np.zeros(claim.shape, claim.dtype)
            for name, claim in claims.items()
        }
    for name, x in found.items():
        if (x.dtype, x.shape) != claims[name]:
            raise ValueError(f"{name} has the type {x.dtype}{x.shape}")
        for part in digests.parts_here(x, 0) if x.dtype == bool else ():
            if (part.values.view(np.uint8) > 1).any():
                raise ValueError(f"{name} has bytes that are no booleans")
    return found


def _divides(sharding: Any, shape: tuple[int, ...]) -> bool:
    """Whether an array can be split so. The trainer says why, if not."""
    if sharding is None:
        return False
    try:
        sharding.shard_shape(shape)
    except (IndexError, ValueError):
        return False
    return True


def _put(x: np.ndarray, sharding: Any) -> Any:
    """Returns an array that every process has, on devices."""
    import jax

    with jax.enable_x64(True):
        return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)


def _damaged(what: str, names: Iterable[str]) -> StateError:
    return StateError(
        f"{what}: got changed bytes in {', '.join(sorted(names))}, expected "
        "what `Trainer.fit` wrote. The checkpoint was damaged since; use an "
        "earlier one, or a copy."
    )


def _unreadable(what: str, error: Exception) -> StateError:
    reason = str(error).split("\n")[0] or type(error).__name__
    return StateError(
        f"{what}: got something that cannot be read ({reason}), expected a "
        "checkpoint that `Trainer.fit` wrote. Use an earlier one, or a copy."
    )
