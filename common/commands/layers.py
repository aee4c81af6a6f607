"""`layers`: the layer table, checked against the definitions here and now."""

import argparse

import rich.console

from common.commands import files, shared_options
from common.rendering.progress import ProgressBar

ABOUT = """
Check every layer of both libraries against its definition.

A row is one definition, in plain JAX. It lists the public layers that match
it and how each library constructs it: the stock layer with its defaults
(nothing is printed), the stock layer with other settings, a custom layer of
this project, or a composition of the library's own parts. Each number is the
largest error of any output, gradient or buffer against the definition in
float64, over three training calls and one inference call. "u" stands for
units in the last place of the dtype, and "*" marks a known difference (see
`differences`). Exits with 0 only if everything else agrees. With NAME it also
prints how each library constructs the layer, where its arrays are, and which
defaults and initial values differ; --json writes these for every row.
"""
EXAMPLES = """
{program} layers
{program} layers multihead_attention
{program} layers --name norm
{program} layers --name conv --dtype float64 float32 bfloat16
{program} layers --json layers.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `layers` to its parser."""
    parser.add_argument(
        "row",
        nargs="?",
        metavar="NAME",
        help="check only the row, or the public layer, of this name, and "
        "print how each library constructs it with every setting, where its "
        "arrays are, and which defaults and initial values differ",
    )
    parser.add_argument(
        "--name",
        default="",
        metavar="TEXT",
        help="check only the rows whose name, family or public layers "
        "contain this text",
    )
    parser.add_argument(
        "--dtype",
        nargs="+",
        metavar="D",
        default=["float64", "float32"],
        help="float64, float32, bfloat16, float16 (default: the first two)",
    )
    shared_options.add_json(parser, "all errors")


def run(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `layers`."""
    from common.agreement import LAYER_TOLERANCES
    from common.comparison import layer_details
    from common.comparison import layer_report as report
    from common.errors import choose
    from common.layers.table import LAYERS

    files.require_writable(options.json, ".json")
    for dtype in options.dtype:
        if dtype not in LAYER_TOLERANCES:
            raise choose("--dtype", dtype, LAYER_TOLERANCES)
    if options.row is None:
        names = _rows_containing(options.name)
    else:
        names = _rows_named(options.row)
    cells = len(names) * len(report.LIBRARIES) * len(options.dtype)
    with ProgressBar(
        cells, "Measuring", console=console, transient=True
    ) as bar:
        measured = report.measure(names, options.dtype, tick=bar.advance)
    console.print(report.table(measured))
    console.print(report.LEGEND, style="dim")
    if options.row is not None:
        for name in names:
            found = layer_details.find_details(LAYERS[name])
            console.print(*layer_details.printed(found), sep="\n")
    failed = [measurement for measurement in measured if not measurement.ok]
    for measurement in failed:
        console.print(*report.problems(measurement), sep="\n", style="red")
    if options.json is not None:
        files.write(options.json, report.to_json(measured), console)
    return 1 if failed else 0


def _rows_named(name: str) -> list[str]:
    """Returns the row of a name, or those that cover a public layer."""
    from common.comparison import layer_report
    from common.errors import choose
    from common.layers.table import LAYERS
    from common.registry import find_constructors

    if name in LAYERS:
        return [name]
    columns = list(map(find_constructors, layer_report.LIBRARIES))
    rows = [
        row
        for row in LAYERS
        if any(name in column[row].stock for column in columns)
    ]
    if not rows:
        raise choose("layer", name, LAYERS)
    return rows


def _rows_containing(text: str) -> list[str]:
    """Returns the names of the rows that a user asks for."""
    from common.comparison import layer_report
    from common.layers.table import LAYERS

    names = layer_report.find_rows(text)
    if not names:
        raise ValueError(
            f"--name: got {text!r}, expected text that one of these names "
            f"contains: {', '.join(LAYERS)}. Leave --name out to check all."
        )
    return names
