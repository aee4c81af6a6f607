"""The commands of the command line: one module each, with its own parser."""

import argparse
from typing import Protocol

import rich.console

from common.commands import (
    align,
    bench,
    compare,
    diff,
    differences,
    docs,
    layers,
    port,
    train,
)


class Command(Protocol):
    """What the module of a command defines."""

    @property
    def ABOUT(self) -> str:
        """The help text, whose first line is shown in the list of commands."""
        ...

    @property
    def EXAMPLES(self) -> str:
        """Lines to type, with `{program}` for the program's name."""
        ...

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options of the command to its parser."""
        ...

    def run(
        self, options: argparse.Namespace, console: rich.console.Console
    ) -> int:
        """Runs the command and returns its exit status."""
        ...


COMMANDS: dict[str, Command] = {
    "compare": compare,
    "align": align,
    "port": port,
    "diff": diff,
    "train": train,
    "bench": bench,
    "layers": layers,
    "differences": differences,
    "docs": docs,
}
