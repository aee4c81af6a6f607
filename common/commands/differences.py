"""`differences`: the known differences, measured here and now."""

import argparse

import rich.console

from common.commands import files, shared_options
from common.rendering.progress import ProgressBar

ABOUT = """
Measure the known differences of the libraries' stock layers.

Each row runs code that shows the difference with the installed versions. The
last sentence of a row says what was measured, and what follows from the
layer's definition.
"""
EXAMPLES = """
{program} differences
{program} differences --name spectral
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `differences` to its parser."""
    parser.add_argument(
        "--name",
        default="",
        metavar="TEXT",
        help="measure only the rows whose name contains this text",
    )
    shared_options.add_json(parser, "all measurements")


def run(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `differences`."""
    from common.differences import known_differences, measure, report

    files.require_writable(options.json, ".json")
    rows = [row for row in known_differences() if options.name in row.name]
    if not rows:
        names = ", ".join(row.name for row in known_differences())
        raise ValueError(
            f"--name: got {options.name!r}, expected text that one of these "
            f"names contains: {names}. Leave --name out to measure all."
        )
    measured = []
    with ProgressBar(
        len(rows), "Measuring", console=console, transient=True
    ) as bar:
        for row in rows:
            measured.append(measure(row))
            bar.advance()
    console.print(report.table(measured))
    console.print(report.summary(measured), highlight=False)
    if options.json is not None:
        files.write(options.json, report.to_json(measured), console)
    return 0
