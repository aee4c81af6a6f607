"""A progress bar for the terminal, and lines in its place elsewhere."""

import time
from collections.abc import Iterator

import rich.console
import rich.progress
import rich.progress_bar
import rich.segment
import rich.text

LINES = 10
"""How many lines stand for the bar where there is no terminal, at most."""

LINE_SECONDS = 2.0
"""Seconds between two lines, at least: a short computation prints none."""


class _Bar(rich.progress.BarColumn):
    """Draws what is left as well where there are no colors.

    Rich's own bar is then as long as what is done, and empty at the start.
    """

    def render(
        self, task: rich.progress.Task
    ) -> rich.progress_bar.ProgressBar:
        return _ColorlessBar(
            total=task.total, completed=task.completed, width=self.bar_width
        )


class _ColorlessBar(rich.progress_bar.ProgressBar):
    def __rich_console__(
        self,
        console: rich.console.Console,
        options: rich.console.ConsoleOptions,
    ) -> Iterator[rich.console.RenderableType | rich.segment.Segment]:
        if console.color_system is not None and not console.no_color:
            yield from super().__rich_console__(console, options)
            return
        width = min(self.width or options.max_width, options.max_width)
        done = int(width * self.completed / max(self.total or 0, 1))
        full, empty = "#." if options.ascii_only else "━─"
        yield rich.text.Text(full * done + empty * (width - done), end="")


class ProgressBar:
    """Shows how far a computation is.

    A terminal shows a bar. Elsewhere, as in the log of a job, the error
    stream gets a line after each tenth of the steps, and at most one every
    two seconds.

    Example:
        >>> with ProgressBar(10, "measuring") as bar:
        ...     for _ in range(10):
        ...         bar.advance()

    Args:
        total: number of steps.
        description: what is being done.
        console: where to draw, if it is a terminal; by default, and if it is
            none, the error stream.
        enabled: whether to show anything.
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
        if console is None or not _draws(console):
            console = rich.console.Console(stderr=True, soft_wrap=True)
        self._console = console
        self._prints_lines = enabled and not _draws(console)
        self._printed = time.monotonic()
        self._next_line = 1
        self._progress = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}", markup=False),
            _Bar(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[detail]}", markup=False),
            rich.progress.TimeRemainingColumn(
                compact=True, elapsed_when_finished=True
            ),
            console=console,
            disable=not (enabled and _draws(console)),
            transient=transient,
        )
        self._task = self._progress.add_task(
            description, total=total, detail=""
        )

    def advance(self, steps: int = 1) -> None:
        """Moves the bar forward."""
        self._progress.advance(self._task, steps)
        if self._prints_lines:
            self._print_line()

    def describe(self, description: str, detail: str = "") -> None:
        """Changes the text before the bar, and the one after it."""
        self._progress.update(
            self._task, description=description, detail=detail
        )

    def _print_line(self) -> None:
        """Prints a line if another tenth is done and time has passed."""
        task = self._progress.tasks[0]
        done, total = int(task.completed), int(task.total or 0)
        if done * LINES < self._next_line * total or done >= total:
            return
        if time.monotonic() - self._printed < LINE_SECONDS:
            return
        self._printed = time.monotonic()
        self._next_line = done * LINES // total + 1
        words = (f"{task.description}:", f"{done}/{total}", *_detail(task))
        self._console.print(" ".join(words), markup=False, highlight=False)

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        self._progress.stop()


def _detail(task: rich.progress.Task) -> list[str]:
    return [task.fields["detail"]] if task.fields["detail"] else []


def _draws(console: rich.console.Console) -> bool:
    """Whether a console can draw a line again."""
    return console.is_terminal and not console.is_dumb_terminal
