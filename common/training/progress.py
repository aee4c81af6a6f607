"""The progress bar of `fit`."""

from collections.abc import Mapping

import numpy as np
import rich.console
import rich.progress


class Progress:
    """A progress bar on the terminal's error stream."""

    def __init__(self, steps: int, *, enabled: bool):
        console = rich.console.Console(stderr=True)
        self._progress = rich.progress.Progress(
            rich.progress.TextColumn("epoch {task.fields[epoch]}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[metrics]}"),
            rich.progress.TimeRemainingColumn(compact=True),
            console=console,
            disable=not (enabled and console.is_terminal),
        )
        self._task = self._progress.add_task(
            "fit", total=steps, epoch=0, metrics=""
        )

    def advance(self, epoch: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Advances by a chunk of steps and shows the mean of its metrics."""
        means = [f"{name} {np.mean(x):.4g}" for name, x in metrics.items()]
        self._progress.update(
            self._task,
            advance=len(metrics["loss"]),
            epoch=epoch,
            metrics=" ".join(means),
        )

    def __enter__(self) -> "Progress":
        self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        self._progress.stop()
