"""Writes folders of checkpoints with Orbax.

It is a module of its own, because Orbax is slow to import. `checkpoints` reads
what this module writes.
"""

import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import future as futures
from orbax.checkpoint.checkpoint_managers import preservation_policy

from common import digests
from common.checkpoints import ARRAYS, DIGESTS, MANIFEST, manifest
from common.files import explain

SECONDS = 600
"""How long the processes wait for each other to complete a checkpoint."""

_COUNT = itertools.count()


class Writer:
    """Writes checkpoints to a folder, in the background.

    A checkpoint appears under its name when it is complete, and older ones
    are deleted after that. So a process that is killed leaves the one that
    was written before.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        keep: int | None,
        *,
        shared: bool = False,
    ):
        """Opens a folder, which exists.

        Args:
            folder: where to write.
            keep: how many checkpoints to keep, the newest ones; `None` keeps
                all.
            shared: whether all processes of the program write each
                checkpoint together. Every one of them makes a writer then,
                and calls its methods in the same order.
        """
        self._folder = str(folder)
        index = jax.process_index()
        self._processes = jax.process_count() if shared else 1
        self._process = index if shared else 0
        together = _options(range(self._processes) if shared else [index])
        self._manager = ocp.CheckpointManager(
            pathlib.Path(folder).resolve(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.LatestN(keep),
                cleanup_tmp_directories=True,
                create=False,
                multiprocessing_options=together,
                async_options=ocp.AsyncOptions(
                    timeout_secs=SECONDS,
                    # In the background, a folder that cannot be made would
                    # keep the process from ending for five minutes.
                    create_directories_asynchronously=False,
                ),
            ),
            item_handlers={
                ARRAYS: ocp.PyTreeCheckpointHandler(
                    multiprocessing_options=together
                ),
                DIGESTS: DigestHandler(self._process),
                MANIFEST: ocp.JsonCheckpointHandler(
                    multiprocessing_options=together
                ),
            },
        )

    def write(
        self, step: int, arrays: Mapping[str, Any], meta: Mapping[str, Any]
    ) -> None:
        """Starts to write a checkpoint, when the one before is complete.

        Arrays are not gathered: each process writes the parts on its devices
        that no process before it has.

        Args:
            step: its name, larger than that of all others.
            arrays: by name, of JAX or of NumPy. Those of NumPy are the same
                in all processes, and must not change any more. Those of JAX
                may be donated at once.
            meta: JSON values, the same in all processes.

        Raises:
            OSError: if this checkpoint or the one before cannot be written.
        """
        arrays = {
            name: x if isinstance(x, jax.Array) else np.asarray(x)
            for name, x in arrays.items()
        }
        # Orbax refuses arrays without elements.
        stored = {name: x for name, x in arrays.items() if x.size}
        try:
            self._manager.wait_until_finished()
            # On CPU, these share the memory of the arrays. JAX donates none
            # that is shared, so that nothing overwrites it.
            parts = {
                name: digests.parts_here(x, self._process)
                for name, x in stored.items()
            }
            header = manifest(arrays, meta, self._processes)
            items: dict[str, Any] = {
                ARRAYS: ocp.args.PyTreeSave(stored),
                DIGESTS: DigestSave(parts),
                MANIFEST: ocp.args.JsonSave(header),
            }
            args = ocp.args.Composite(**items)
            self._manager.save(step, args=args, force=True)
        except Exception as error:  # Orbax raises several types
            raise self._explained(error) from error

    def close(self) -> None:
        """Waits for the last checkpoint.

        Raises:
            OSError: if it cannot be written.
        """
        try:
            try:
                self._manager.wait_until_finished()
            finally:
                self._manager.close()
        except Exception as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> OSError:
        what = f"checkpoint folder {self._folder!r}"
        return explain(error, what, "a folder that can be written to")


def _options(processes: Iterable[int]) -> Any:
    """Returns Orbax's options for some processes, of which the first leads.

    Given the processes, Orbax lets them wait for each other through JAX's
    coordination service: not without end, and with no program on the devices.
    """
    active = list(processes)
    # The same step may be written again, to another folder.
    prefix = f"eqx-vs-nnx-{next(_COUNT)}" if len(active) > 1 else None
    return ocp.options.MultiprocessingOptions(
        primary_host=active[0],
        active_processes=set(active),
        barrier_sync_key_prefix=prefix,
    )


class DigestHandler(ocp.handlers.JsonCheckpointHandler):
    """Computes digests and writes them, in the background.

    Each process writes a file with the sums over its own parts. Orbax gives
    the checkpoint its name when all processes have written theirs.
    """

    def __init__(self, process: int):
        """Makes the handler of one process.

        Args:
            process: its number among those that write the checkpoint.
        """
        self._name = digests.file_name(process)
        options = _options([jax.process_index()])
        super().__init__(self._name, multiprocessing_options=options)

    async def async_save(
        self, directory: Any, item: Any = None, args: Any = None
    ) -> Any:
        """Starts to write, when the folder exists."""
        future = futures.CommitFutureAwaitingContractedSignals(
            self._write(directory, args.parts), name="digests"
        )
        return [future]

    async def _write(
        self, directory: Any, parts: Mapping[str, Sequence[digests.Part]]
    ) -> None:
        sums = {name: digests.total(found) for name, found in parts.items()}
        (directory / self._name).write_text(json.dumps(digests.sign(sums)))


@ocp.args.register_with_handler(DigestHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class DigestSave(ocp.args.CheckpointArgs):
    """What to compute digests of.

    Attributes:
        parts: of each array, the parts of this process.
    """

    parts: Mapping[str, Sequence[digests.Part]]
