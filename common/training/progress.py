"""The progress bar of `fit`."""

import numpy as np
import rich.console
import rich.progress

Run = dict[str, np.ndarray]


class Progress:
    """A progress bar of `fit` on the terminal's error stream."""

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

    def advance(self, epoch: int, run: Run) -> None:
        """Ticks by the steps of a chunk; shows their mean metrics."""
        metrics = " ".join(f"{k} {np.mean(x):.4g}" for k, x in run.items())
        self._progress.update(
            self._task,
            advance=len(run["loss"]),
            epoch=epoch,
            metrics=metrics,
        )

    def __enter__(self):
        self._progress.start()
        return self

    def __exit__(self, *_):
        self._progress.stop()
