"""What `fit` checks before it trains, in all processes alike."""

import pathlib
from typing import Any, NamedTuple

from common.training import checkpointing, checks, part_checks

DEFAULT_BATCH_SIZE = 32


class Fit(NamedTuple):
    """The arguments of a call of `fit`, checked.

    Attributes:
        size: the number of examples that all processes have.
        batch_size: the number of examples in a step.
        folder: where checkpoints are written, or `None`.
        found: what the newest checkpoint in there records, or `None`.
    """

    size: int
    batch_size: int
    folder: pathlib.Path | None
    found: dict[str, Any] | None


def check(
    trainer: Any,
    data: tuple[Any, Any],
    epochs: int,
    batch_size: int | None,
    checkpoint: tuple[Any, Any, Any, Any],
) -> Fit:
    """Checks the arguments of `fit`. Nothing is written or compiled.

    Args:
        trainer: the trainer.
        data: the inputs and targets of this process.
        epochs: the number of epochs.
        batch_size: the number of examples in a step, or `None`.
        checkpoint: the arguments `checkpoint`, `every`, `keep` and `resume`.

    Raises:
        BatchError: if one does not fit, or is another one in some process.
        StateError: if the checkpoints in the folder are of another model.
    """
    placement, settings = trainer.placement, trainer.settings

    def check_here():
        trainer.check(*data, training=True)
        folder = checkpointing.check(*checkpoint)
        return checks.check_examples(*data), folder

    size, folder = placement.together(check_here)
    found = checkpointing.find_run(folder, trainer)
    if batch_size is None:
        *_, resume = checkpoint
        known = found if resume and found else trainer.fitted
        batch_size = int(known.get("batch_size", DEFAULT_BATCH_SIZE))
    placement.require_same(
        {
            "number of examples": size,
            "batch_size": batch_size,
            "epochs": epochs,
            "place": trainer.place,
            "checkpoint": checkpoint,
        }
    )
    size *= placement.processes
    smallest = trainer.subject.min_batch_size
    checks.check_fit(size, epochs, batch_size, smallest)
    placement.check_batch("batch_size", batch_size, whole=True)
    part_checks.check_parts("batch_size", batch_size, settings, smallest)
    return Fit(size, batch_size, folder, found)
