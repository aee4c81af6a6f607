"""What commands print to: a console that reports a closed pipe."""

import rich.console


class Terminal(rich.console.Console):
    """A console that raises BrokenPipeError when the reader has gone.

    Rich's own exits with status 1, which here means a failed comparison.
    """

    def on_broken_pipe(self) -> None:
        """Raises the BrokenPipeError that rich has caught."""
        raise


def count(number: int, noun: str) -> str:
    """Returns a number with its noun: `"1 step"`, `"2 steps"`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
