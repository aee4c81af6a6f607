"""Reports the known differences on the terminal, in the docs, and as JSON."""

import ast
import inspect
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import rich.console
from rich.text import Text

from common.differences.measurement import Measurement
from common.differences.row import (
    FAMILIES,
    NOT_REPORTED,
    RAISES,
    REPOSITORIES,
    KnownDifference,
)
from common.rendering.files import to_json as dump
from common.rendering.tables import Column, Table, render_table

LIBRARIES = {"equinox": "Equinox", "flax": "Flax NNX"}

NAME_WIDTH = 27
SENTENCE_END = re.compile(r"(?<=\.) (?=[A-Z`])")

FILTER = """
<form class="filter" role="search" hidden>
  <label for="filter">Filter</label>
  <input id="filter" type="search" autocomplete="off" spellcheck="false"
    placeholder="BatchNorm, bfloat16, raises">
  <output for="filter"></output>
</form>
"""


def table(measurements: Sequence[Measurement]) -> rich.console.Group:
    """Returns one table per family, for a terminal of 80 columns or more."""
    return rich.console.Group(
        *(
            render_table(_table(title, members))
            for title, members in _by_title(measurements).items()
        )
    )


def summary(measurements: Sequence[Measurement]) -> str:
    """Says how many differences are still there, and names the others."""
    others = [m for m in measurements if not m.still_there]
    total = f"{len(measurements)} known differences"
    if len(measurements) == 1:
        total = "1 known difference"
    if not others:
        verb = "is" if len(measurements) == 1 else "are"
        return f"{total} {verb} still there."
    names = ", ".join(f"{m.row.name} ({m.verdict})" for m in others)
    return f"{len(others)} of {total}: {names}."


def _table(title: str, measurements: Sequence[Measurement]) -> Table:
    # The column fits every name, because a wrapped name cannot be searched.
    columns = (
        Column("where", width=NAME_WIDTH, wrap=False),
        Column("what differs", fill=True),
    )
    rows = []
    for measurement in measurements:
        row = measurement.row
        where = Text(row.name, "bold")
        layer = textwrap.wrap(row.layer, NAME_WIDTH)
        facts = [*layer, f"{LIBRARIES[row.backend]}, {row.dtype}"]
        if row.upstream != NOT_REPORTED:
            facts.append(f"issue: {row.upstream}")
        where.append("\n" + "\n".join(facts), style="not bold dim")
        what = Text(f"{row.what}\n")
        what.append(sentence(measurement), style="cyan")
        if not measurement.still_there:
            what.append(f" ({measurement.verdict})", style="bold red")
        rows.append((where, what))
    return Table(title, columns, rows, lines=True)


def sentence(measurement: Measurement) -> str:
    """Says in one sentence what was measured, and what follows from the
    definition."""
    quantity = measurement.row.quantity
    measured, expected = _numbers(measurement)
    if quantity == RAISES:
        return f"The call {measured}."
    quantity, _, unit = quantity.partition(", in ")
    if not quantity.startswith(("a ", "an ", "the ")):
        quantity = f"the {quantity}"
    if unit:
        unit = unit.removesuffix("s") if measured == "1" else unit
        measured += f" {unit}"
    if not measurement.gone:
        measured += f" instead of {expected}"
    return f"{quantity[0].upper()}{quantity[1:]} is {measured}."


def _by_title(
    measurements: Sequence[Measurement],
) -> dict[str, list[Measurement]]:
    """Returns the measurements by the title of their family."""
    members = {
        title: [
            measurement
            for measurement in measurements
            if measurement.row.family == family
        ]
        for family, title in FAMILIES.items()
    }
    return {title: rows for title, rows in members.items() if rows}


def markdown(measurements: Sequence[Measurement]) -> str:
    """Returns a page of the docs, with a part to open for each difference."""
    lines = [
        "# Known differences",
        "",
        "This page lists where a stock layer of one library differs from its "
        "definition, by how much, and what this project does about it. Open "
        "a line to see what differs, why, and the code that measures its "
        "number. This code also runs as a test, which fails when a release "
        "of the library removes the difference. All numbers were measured "
        "when this page was built.",
        "",
        "```{raw} html",
        FILTER.strip(),
        "```",
    ]
    for title, members in _by_title(measurements).items():
        lines += ["", f"## {title}"]
        for measurement in members:
            lines += _section(measurement)
    return "\n".join(lines) + "\n"


def _numbers(measurement: Measurement) -> tuple[str, str]:
    """Returns the measured and the expected number as text."""
    row, value = measurement.row, measurement.value
    if row.quantity == RAISES:
        return "raises an error" if value else "runs", "runs"
    return f"{value:.3g}", f"{row.expected:.3g}"


def _section(measurement: Measurement) -> list[str]:
    row = measurement.row
    first, *others = SENTENCE_END.split(row.what)
    verdict = "" if measurement.still_there else f" ({measurement.verdict})"
    upstream = _link(row.upstream)
    if row.related:
        upstream += f" (related: {', '.join(map(_link, row.related))})"
    return [
        "",
        f"::::{{dropdown}} {LIBRARIES[row.backend]} `{row.layer}`: {first} "
        f"*{sentence(measurement)}{verdict}*",
        f":name: {row.name}",
        ":class-container: difference",
        "",
        " ".join(others),
        "",
        f"- Name: `{row.name}`",
        f"- Dtype: {row.dtype}",
        *_record(measurement),
        f"- Upstream: {upstream}",
        f"- In this project: {row.ours}",
        "",
        "```{code-block} python",
        f':caption: "{row.source}"',
        "",
        _function_source(row),
        "```",
        "::::",
    ]


def _record(measurement: Measurement) -> list[str]:
    row = measurement.row
    if row.quantity == RAISES:
        return []
    record = f"- On record: {row.measured:.4g}"
    if row.origin not in ("measured", f"{row.measured:g}"):
        record += f", from the formula `{row.origin}`"
    return [
        f"{record}; a measurement may deviate by {row.band:.2g} times the "
        "recorded difference",
    ]


def _function_source(row: KnownDifference) -> str:
    """Returns the source of a demonstration without its decorator."""
    source = inspect.getsource(inspect.unwrap(row.demonstration))
    # The line of a function in the syntax tree is that of its `def`.
    start = ast.parse(source).body[0].lineno - 1
    return "\n".join(source.rstrip().splitlines()[start:])


def _link(issue: str) -> str:
    return issue if issue == NOT_REPORTED else f"[{issue}]({issue_url(issue)})"


def to_json(measurements: Sequence[Measurement]) -> str:
    """Returns the rows and their measurements as JSON."""

    def entry(measurement: Measurement) -> dict[str, Any]:
        row = measurement.row
        return {
            **vars(row),
            "excuses": [excuse._asdict() for excuse in row.excuses],
            "demonstration": row.source,
            "url": (
                None
                if row.upstream == NOT_REPORTED
                else issue_url(row.upstream)
            ),
            "value": measurement.value,
            "verdict": measurement.verdict,
        }

    return dump([entry(measurement) for measurement in measurements])


def issue_url(issue: str) -> str:
    """Returns the address of an issue such as `"flax #5576"`."""
    library, number = issue.split(" #")
    return f"https://github.com/{REPOSITORIES[library]}/issues/{number}"
