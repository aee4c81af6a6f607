"""Follows a run of chunks: progress, failures and Control-C."""

from collections.abc import Callable, Iterable

import numpy as np

from common.errors import Interrupted, NonFiniteLossError
from common.training.interrupts import DelayedInterrupt
from common.training.loop import Chunk
from common.training.progress import Progress


def follow(
    chunks: Iterable[Chunk],
    keep: Callable[[Chunk], None],
    steps_taken: Callable[[], int],
    anywhere: Callable[[bool], bool],
    *,
    steps: int,
    empty: np.ndarray,
    progress: bool,
) -> np.ndarray:
    """Runs chunks of steps, and returns the loss of every step.

    Args:
        chunks: as `Loop.chunks` yields them.
        keep: stores the run after a chunk.
        steps_taken: returns the number of steps of the stored run.
        anywhere: tells whether a flag is set in any process of the program.
        steps: the number of steps in all chunks.
        empty: what is returned if there are no losses.
        progress: whether to show a progress bar, or lines off a terminal.

    Raises:
        NonFiniteLossError: naming the first step that produced a NaN or an
            infinity.
        Interrupted: after Control-C.
    """
    losses = [empty]
    try:
        with (
            DelayedInterrupt() as interrupt,
            Progress(steps, enabled=progress) as bar,
        ):
            for chunk in chunks:
                keep(chunk)
                if chunk.failure is not None:
                    raise NonFiniteLossError(
                        steps_taken() + 1,
                        chunk.failure,
                        np.concatenate(losses),
                    )
                if chunk.metrics:
                    losses.append(chunk.metrics["loss"])
                    bar.advance(chunk.place.epoch, chunk.metrics)
                if anywhere(interrupt.pending):
                    break
    except KeyboardInterrupt as error:
        raise Interrupted(np.concatenate(losses)) from error
    if anywhere(interrupt.pending):
        raise Interrupted(np.concatenate(losses))
    return np.concatenate(losses)
