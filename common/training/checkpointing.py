"""Checkpoints that `fit` writes while it trains."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from common import checkpoints
from common.errors import BatchError, StateError
from common.files import explain
from common.training import manifest, processes
from common.training.data import Take
from common.training.loop import Chunk
from common.training.placement import Placement


class Checkpointing:
    """A context in which the run of a trainer is written to a folder.

    It writes when the number of steps is a multiple of `every`, and at the
    end, also after Control-C.
    """

    def __init__(
        self, trainer: Any, folder: pathlib.Path, every: int, keep: int | None
    ):
        """Makes the context.

        Args:
            trainer: the trainer that `fit` trains.
            folder: where to write; it exists.
            every: the number of steps from one checkpoint to the next.
            keep: how many checkpoints to keep; all of them if `None`.
        """
        self._trainer = trainer
        self._every = every
        self._step = trainer.steps_taken
        self._written = max(checkpoints.steps(folder), default=-1)
        if self._written > self._step:
            raise StateError(
                f"{_name(folder)}: got checkpoints up to step "
                f"{self._written}, expected none after step {self._step} of "
                "this trainer. Pass `resume=True` to continue that run, or "
                "another folder."
            )
        from common import checkpoint_writer  # slow to import

        several = trainer.placement.processes > 1
        self._several = several
        self._writer = checkpoint_writer.Writer(folder, keep, shared=several)

    def __enter__(self) -> "Checkpointing":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        writes = kind is None or self._was_stopped(error)
        try:
            if writes:
                self._write()
        finally:
            try:
                self._writer.close()
            except OSError as failure:
                if writes:
                    raise
                error.add_note(str(failure))  # what ended the run is raised

    def _was_stopped(self, error: BaseException) -> bool:
        """Tells whether Control-C ended the run, in all of its processes.

        An exception that one process raises by itself is the cause of
        another one: the others do not write a last checkpoint then.
        """
        is_agreed = not self._several or error.__cause__ is None
        return isinstance(error, KeyboardInterrupt) and is_agreed

    def bounded(self, take: Take) -> Take:
        """Returns steps up to the next checkpoint only."""

        def bounded(start, end, *, count):
            left = self._every - self._step % self._every
            return take(start, end, count=min(count, left))

        return bounded

    def after(self, keep: Callable[[Chunk], None]) -> Callable[[Chunk], None]:
        """Returns a function that keeps a chunk, and may write a checkpoint.

        Args:
            keep: stores the run after a chunk.
        """

        def keep_and_write(chunk: Chunk) -> None:
            keep(chunk)
            if chunk.failure is None and chunk.metrics:
                self._step += len(chunk.metrics["loss"])
                if self._step % self._every == 0:
                    self._write()

        return keep_and_write

    def _write(self) -> None:
        if self._step == self._written:
            return
        arrays = self._trainer.canonical()
        meta = manifest.manifest(self._trainer)
        self._writer.write(self._step, arrays, meta)
        self._written = self._step


def check(
    checkpoint: Any, every: Any, keep: Any, resume: Any
) -> pathlib.Path | None:
    """Checks the arguments of `fit`. Nothing is written.

    Returns:
        The folder, or `None` if no checkpoints are to be written.

    Raises:
        BatchError: with the actual and the expected value of an argument.
    """
    for name, x in (("every", every), ("keep", keep)):
        is_integer = isinstance(x, int | np.integer) and x is not True
        if x is not None and not (is_integer and x >= 1):
            raise BatchError(
                f"{name}: got {x!r}, expected an integer of 1 or more. Pass "
                f"one, or leave `{name}` out."
            )
    if checkpoint is None:
        given = {"every": every, "keep": keep, "resume": resume or None}
        found = [name for name, x in given.items() if x is not None]
        if found:
            raise BatchError(
                f"checkpoint: got None with {', '.join(found)}, expected a "
                "folder. Pass `checkpoint=` where to write."
            )
        return None
    if not isinstance(checkpoint, str | os.PathLike):
        raise BatchError(
            f"checkpoint: got {checkpoint!r}, expected the path of a folder. "
            "Pass a string or a `pathlib.Path`."
        )
    folder = pathlib.Path(checkpoint)
    what = _name(folder)
    if folder.exists() and not folder.is_dir():
        raise BatchError(
            f"{what}: got a file, expected a folder. Pass the path of a "
            "folder, which need not exist."
        )
    others = checkpoints.strangers(folder) if folder.exists() else []
    if others:
        raise BatchError(
            f"{what}: got {', '.join(map(repr, others[:3]))} in it, expected "
            "a new folder, or one with checkpoints only. Pass the path of a "
            "new folder."
        )
    return folder


def prepare(folder: pathlib.Path, placement: Placement) -> None:
    """Makes a folder if it is missing, and checks that it can be written to.

    Args:
        folder: where to write.
        placement: of the run. The first of its processes makes the folder,
            and all of them must see it.

    Raises:
        OSError: naming the folder, and what to do.
        BatchError: if other processes do not see what the first one writes.
    """
    what, expected = _name(folder), "a folder that can be written to"

    @contextlib.contextmanager
    def probe() -> Iterator[str]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # A name that `checkpoints.strangers` does not mind.
            file = tempfile.NamedTemporaryFile(dir=folder, prefix=".")
        except OSError as error:
            raise explain(error, what, expected) from error
        with file:
            yield pathlib.Path(file.name).name

    with contextlib.ExitStack() as stack:
        is_first = placement.process == 0
        name = placement.together(
            lambda: stack.enter_context(probe()) if is_first else ""
        )
        if placement.processes == 1:
            return
        name = processes.gather(name)[0]
        placement.together(lambda: _require_file(folder, name, placement))


def _require_file(
    folder: pathlib.Path, name: str, placement: Placement
) -> None:
    if not (folder / name).exists():
        raise BatchError(
            f"{_name(folder)}: got a folder of process {placement.process} "
            "alone, expected one that all processes share. Pass the path of "
            "a folder on a disk that all of them can reach."
        )


def find_run(
    folder: pathlib.Path | None, trainer: Any
) -> dict[str, Any] | None:
    """Checks that the checkpoints of a folder are of a trainer's model.

    Returns:
        What the newest checkpoint records of its run, or `None` if there is
        none.

    Raises:
        StateError: if they are of another model, or were damaged.
        BatchError: if the processes of the program see other checkpoints.
    """
    if folder is None:
        return None
    steps = trainer.placement.together(lambda: _steps(folder))
    _require_same_steps(folder, steps, trainer.placement)
    if not steps:
        return None
    return trainer.placement.together(
        lambda: _read_meta(folder / str(steps[-1]), folder, trainer)
    )


def _steps(folder: pathlib.Path) -> list[int]:
    return checkpoints.steps(folder) if folder.exists() else []


def _require_same_steps(
    folder: pathlib.Path, steps: list[int], placement: Placement
) -> None:
    if placement.processes == 1:
        return
    first, *others = processes.gather(steps)
    for process, other in enumerate(others, 1):
        if other != first:
            raise BatchError(
                f"{_name(folder)}: got checkpoints of the steps {other} in "
                f"process {process}, expected {first} as in process 0. Pass "
                "the path of a folder that all processes share."
            )


def _read_meta(
    path: pathlib.Path, folder: pathlib.Path, trainer: Any
) -> dict[str, Any]:
    meta = checkpoints.read(path, arrays=False).meta
    spec = trainer.subject.spec
    free = () if spec is None else spec.program_fields
    got, expected = (
        _model(one, free) for one in (meta, manifest.manifest(trainer))
    )
    if got != expected:
        raise StateError(
            f"{_name(folder)}: got checkpoints of {got}, expected those of "
            f"{expected}, as in this trainer. Pass the path of a new folder."
        )
    return meta


def resume(trainer: Any, folder: pathlib.Path) -> None:
    """Loads the newest checkpoint of a folder.

    It may have been written on another number of devices and processes.

    Raises:
        StateError: if the trainer is further than that, or if it does not
            fit.
    """
    step, newest = trainer.steps_taken, checkpoints.steps(folder)[-1]
    if newest < step:
        raise StateError(
            f"{_name(folder)}: got checkpoints up to step {newest}, expected "
            f"one at step {step} of this trainer or later. Leave `resume` "
            "out to continue from the trainer."
        )
    trainer.load(folder)


def _model(meta: Mapping[str, Any], free: Collection[str]) -> str:
    name = meta.get("spec", meta.get("model"))
    sizes = json.loads(json.dumps(meta.get("hyper_parameters", {})))
    values = {**sizes, "dtype": meta.get("dtype")}
    values = {key: x for key, x in values.items() if key not in free}
    shown = ", ".join(f"{key}={x!r}" for key, x in values.items())
    return f"{name}({shown})"


def _name(folder: pathlib.Path) -> str:
    return f"checkpoint folder {str(folder)!r}"
