"""Reports the known differences on the terminal, in the docs, and as JSON."""

import ast
import inspect
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
from common.rendering.tables import (
    Column,
    Table,
    markdown_table,
    render_table,
)


def table(measurements: Sequence[Measurement]) -> rich.console.Group:
    """Returns one table per family for a terminal of 80 columns."""
    return rich.console.Group(
        *(
            render_table(_table(title, members))
            for title, members in _by_title(measurements).items()
        )
    )


def _table(title: str, measurements: Sequence[Measurement]) -> Table:
    # The column fits every name, because a wrapped name cannot be searched.
    columns = (
        Column("where", width=25, wrap=False),
        Column("what differs", fill=True),
        Column("measured", width=8),
        Column("upstream", width=8),
    )
    rows = []
    for measurement in measurements:
        row = measurement.row
        where = Text(f"{row.name}\n")
        where.append(f"{row.layer}\n{row.backend}, {row.dtype}", style="dim")
        measured, expected = _numbers(measurement)
        number = Text(measured)
        if row.quantity != RAISES:
            number.append(f"\nnot {expected}", style="dim")
        if not measurement.still_there:
            number.append(f"\n{measurement.verdict}", style="bold red")
        rows.append((where, row.what, number, row.upstream))
    return Table(title, columns, rows, lines=True)


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
    """Returns a page of the docs that shows the source of each measurement."""
    lines = [
        "# Known differences",
        "",
        "This page lists where a stock layer of one library differs from its "
        "definition, by how much, and what this project does about it. The "
        "code below each entry measures its number and also runs as a test, "
        "which fails when a release of the library removes the difference. "
        "The verdict in parentheses compares the number that was measured "
        "when this page was built with the number on record.",
    ]
    columns = (
        "difference",
        "library",
        "layer",
        Column("measured", "right"),
        Column("expected", "right"),
        "upstream",
    )
    for title, members in _by_title(measurements).items():
        rows = [
            (
                f"[{measurement.row.name}](#{measurement.row.name})",
                measurement.row.backend,
                measurement.row.layer,
                *_numbers(measurement),
                _link(measurement.row.upstream),
            )
            for measurement in members
        ]
        table = markdown_table(Table("", columns, rows)).rstrip()
        lines += ["", f"## {title}", "", table]
        for measurement in members:
            lines += _section(measurement)
    return "\n".join(lines) + "\n"


def _numbers(measurement: Measurement) -> tuple[str, str]:
    """Returns the measured and the expected number as text."""
    row, value = measurement.row, measurement.value
    if row.quantity == RAISES:
        return "raises" if value else "runs", "runs"
    return f"{value:.3g}", f"{row.expected:.3g}"


def _section(measurement: Measurement) -> list[str]:
    row = measurement.row
    upstream = _link(row.upstream)
    if row.related:
        upstream += f" (related: {', '.join(map(_link, row.related))})"
    return [
        "",
        f"({row.name})=",
        f"### {row.name}",
        "",
        row.what,
        "",
        f"- Layer: `{row.layer}` ({row.backend}, {row.dtype})",
        *_findings(measurement),
        f"- Upstream: {upstream}",
        f"- In this project: {row.ours}",
        "",
        f":::{{dropdown}} `{row.source}`",
        "```python",
        _function_source(row),
        "```",
        ":::",
    ]


def _findings(measurement: Measurement) -> list[str]:
    row, verdict = measurement.row, measurement.verdict
    if row.quantity == RAISES:
        measured, expected = _numbers(measurement)
        return [f"- Measured: {measured}; expected: {expected} ({verdict})"]
    record = f"- On record: {row.measured:.4g}"
    if row.origin not in ("measured", f"{row.measured:g}"):
        record += f", from the formula `{row.origin}`"
    return [
        f"- Quantity: {row.quantity}",
        f"- Measured: {measurement.value:.4g}; expected: {row.expected:.4g} "
        f"({verdict})",
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
