"""A progress bar for the terminal."""

import rich.console
import rich.progress


class ProgressBar:
    """Shows how far a computation is.

    Prints nothing when the console is not a terminal.

    Example:
        >>> with ProgressBar(10, "measuring") as bar:
        ...     for _ in range(10):
        ...         bar.advance()

    Args:
        total: number of steps.
        description: what is being done.
        console: where to draw; by default the error stream.
        enabled: whether to draw at all.
        transient: whether to remove the bar at the end.
    """

    def __init__(
        self,
        total: int,
        description: str = "",
        *,
        console: rich.console.Console | None = None,
        enabled: bool = True,
        transient: bool = False,
    ):
        if console is None:
            console = rich.console.Console(stderr=True)
        self._progress = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[detail]}", markup=False),
            rich.progress.TimeRemainingColumn(
                compact=True, elapsed_when_finished=True
            ),
            console=console,
            disable=not (enabled and console.is_terminal),
            transient=transient,
        )
        self._task = self._progress.add_task(
            description, total=total, detail=""
        )

    def advance(self, steps: int = 1) -> None:
        """Moves the bar forward."""
        self._progress.advance(self._task, steps)

    def describe(self, description: str, detail: str = "") -> None:
        """Changes the text before the bar, and the one after it."""
        self._progress.update(
            self._task, description=description, detail=detail
        )

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        self._progress.stop()
