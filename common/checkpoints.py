"""Folders of checkpoints, which Orbax writes whole or not at all.

Each checkpoint is a folder called by its step. It holds the arrays of a State
and a manifest, which has the SHA-256 of every array and of itself.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from common.errors import StateError
from common.files import explain

FORMAT = "eqx-vs-nnx/checkpoint/1"
ARRAYS, MANIFEST = "state", "manifest"
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


class Writer:
    """Writes checkpoints to a folder, in the background.

    A checkpoint appears under its name when it is complete, and older ones
    are deleted after that. So a process that is killed leaves the one that
    it wrote before.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int | None):
        """Opens a folder, which exists, for one process.

        Args:
            folder: where to write.
            keep: how many checkpoints to keep, the newest ones; `None` keeps
                all.
        """
        import orbax.checkpoint as ocp  # slow to import
        from orbax.checkpoint.checkpoint_managers import preservation_policy

        self._folder = str(folder)
        self._ocp = ocp
        self._manager = ocp.CheckpointManager(
            pathlib.Path(folder).resolve(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.LatestN(keep),
                cleanup_tmp_directories=True,
            ),
        )

    def write(
        self, step: int, arrays: Mapping[str, Any], meta: Mapping[str, Any]
    ) -> None:
        """Starts to write a checkpoint, when the one before is complete.

        Args:
            step: its name, larger than that of all others.
            arrays: by name, on the host. They must not change any more.
            meta: JSON values.

        Raises:
            OSError: if this checkpoint or the one before cannot be written.
        """
        arrays = {name: np.asarray(x) for name, x in arrays.items()}
        args = self._ocp.args
        parts = {
            # Orbax refuses arrays without elements.
            ARRAYS: args.PyTreeSave(
                {k: x for k, x in arrays.items() if x.size}
            ),
            MANIFEST: args.JsonSave(_manifest(arrays, meta)),
        }
        try:
            self._manager.wait_until_finished()
            self._manager.save(step, args=args.Composite(**parts), force=True)
        except Exception as error:  # Orbax raises several types
            raise self._explained(error) from error

    def close(self) -> None:
        """Waits for the last checkpoint.

        Raises:
            OSError: if it cannot be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._explained(error) from error
        finally:
            self._manager.close()

    def _explained(self, error: Exception) -> OSError:
        what = f"checkpoint folder {self._folder!r}"
        return explain(error, what, "a folder that can be written to")


def _manifest(
    arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]
) -> dict[str, Any]:
    manifest = {
        "format": FORMAT,
        "meta": dict(meta),
        "arrays": {
            name: {
                "dtype": x.dtype.name,
                "shape": list(x.shape),
                "sha256": _sha256(x),
            }
            for name, x in arrays.items()
        },
    }
    return {**manifest, "digest": _digest(manifest)}


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


def read(path: str | os.PathLike[str], arrays: bool = True) -> Checkpoint:
    """Reads a checkpoint, or the newest one in a folder of them.

    Args:
        path: of the checkpoint, or of the folder.
        arrays: whether to read the arrays, and not the manifest alone.

    Raises:
        StateError: if it was damaged, or is none.
    """
    path = find(path)
    what = f"checkpoint {str(path)!r}"
    try:
        manifest = _restore_manifest(path)
        claims = _claims(manifest)
    except Exception as error:  # Orbax raises several types
        raise _unreadable(what, error) from error
    if not arrays:
        return Checkpoint(path, {}, manifest["meta"])
    on_disk = sum(x.stat().st_size for x in path.rglob("*") if x.is_file())
    claimed = sum(claim.nbytes for claim in claims.values())
    if claimed > ALLOWED + RATIO * on_disk:
        raise StateError(
            f"{what}: got a manifest of {claimed} bytes in {on_disk} bytes, "
            "expected what `Trainer.fit` wrote. Use another checkpoint."
        )
    try:
        found = _restore(path, claims)
    except Exception as error:
        raise _unreadable(what, error) from error
    damaged = [
        name
        for name, x in found.items()
        if _sha256(x) != manifest["arrays"][name]["sha256"]
    ]
    if damaged:
        raise StateError(
            f"{what}: got changed bytes in {', '.join(sorted(damaged))}, "
            "expected what `Trainer.fit` wrote. The checkpoint was damaged "
            "since; use an earlier one, or a copy."
        )
    return Checkpoint(path, found, manifest["meta"])


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
    if manifest["format"] != FORMAT:
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


def _restore_manifest(path: pathlib.Path) -> Any:
    import orbax.checkpoint as ocp  # slow to import

    with ocp.Checkpointer(_handler(ocp)) as reader:
        parts = ocp.args.Composite(**{MANIFEST: ocp.args.JsonRestore()})
        return reader.restore(path.resolve(), args=parts)[MANIFEST]


def _handler(ocp: Any) -> Any:
    return ocp.CompositeCheckpointHandler(
        **{
            ARRAYS: ocp.PyTreeCheckpointHandler(),
            MANIFEST: ocp.JsonCheckpointHandler(),
        }
    )


def _restore(
    path: pathlib.Path, claims: Mapping[str, _Claim]
) -> dict[str, np.ndarray]:
    import orbax.checkpoint as ocp

    # On the host, so that the devices need not be those of the writer.
    to_host = ocp.RestoreArgs(restore_type=np.ndarray)
    with ocp.Checkpointer(_handler(ocp)) as reader:
        metadata = reader.metadata(path.resolve()).item_metadata[ARRAYS].tree
        types = {
            name: _Claim(np.dtype(x.dtype), tuple(x.shape))
            for name, x in metadata.items()
        }
        wanted = {k: claim for k, claim in claims.items() if claim.nbytes}
        if types != wanted:
            raise ValueError("the arrays are not those of the manifest")
        arguments = ocp.args.PyTreeRestore(
            restore_args=dict.fromkeys(wanted, to_host)
        )
        parts = ocp.args.Composite(**{ARRAYS: arguments})
        restored = reader.restore(path.resolve(), args=parts)[ARRAYS]
    return {
        name: restored[name]
        if claim.nbytes
        else np.zeros(claim.shape, claim.dtype)
        for name, claim in claims.items()
    }


def _unreadable(what: str, error: Exception) -> StateError:
    reason = str(error).split("\n")[0] or type(error).__name__
    return StateError(
        f"{what}: got something that cannot be read ({reason}), expected a "
        "checkpoint that `Trainer.fit` wrote. Use an earlier one, or a copy."
    )
