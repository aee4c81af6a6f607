"""The known differences on the terminal, in the documentation, as JSON."""

import dataclasses
import inspect
import json
import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from common.differences import (
    FAMILIES,
    NOT_REPORTED,
    RAISES,
    REPOSITORIES,
    Measurement,
    find_demonstration,
)


def table(measurements: Sequence[Measurement]) -> Group:
    """Returns a table a family for the terminal, readable at 80 columns."""
    return Group(
        *(
            _table(title, rows)
            for title, rows in _families(measurements).items()
        )
    )


def _table(title: str, measurements: Sequence[Measurement]) -> Table:
    view = Table(
        title=title,
        title_style="bold",
        box=box.HORIZONTALS,
        expand=True,
        show_lines=True,
    )
    # Wide enough for every name: a name that is broken cannot be searched.
    view.add_column("where", width=25, no_wrap=True)
    view.add_column("what differs", ratio=1)
    view.add_column("measured", width=8)
    view.add_column("upstream", width=8)
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
        view.add_row(where, Text(row.what), number, Text(row.upstream))
    return view


def _families(
    measurements: Sequence[Measurement],
) -> dict[str, list[Measurement]]:
    """Returns the measurements by the title of their family."""
    found = {
        title: [it for it in measurements if it.row.family == family]
        for family, title in FAMILIES.items()
    }
    return {title: rows for title, rows in found.items() if rows}


def markdown(measurements: Sequence[Measurement]) -> str:
    """Returns the page of the documentation, with each row's source."""
    lines = [
        "# Known differences",
        "",
        "Where a stock layer of one library parts from the meaning, by how "
        "much, and what this project does about it. Each number comes from "
        "the code below it, which also runs as a test: when a release closes "
        "a difference, the test fails.",
    ]
    for title, rows in _families(measurements).items():
        columns = ("difference", "library", "layer", "measured", "expected")
        head = f"| {' | '.join((*columns, 'upstream'))} |"
        rule = "|---|---|---|--:|--:|---|"
        lines += ["", f"## {title}", "", head, rule]
        for measurement in rows:
            row = measurement.row
            cells = [
                f"[{row.name}](#{row.name})",
                row.backend,
                row.layer,
                *_numbers(measurement),
                _link(row.upstream),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        for measurement in rows:
            lines += _section(measurement)
    return "\n".join(lines) + "\n"


def _numbers(measurement: Measurement) -> tuple[str, str]:
    """What was measured and what is expected; an exception is no number."""
    row, value = measurement.row, measurement.value
    if row.quantity == RAISES:
        return "raises" if value else "runs", "runs"
    return f"{value:.3g}", f"{row.expected:.3g}"


def _section(measurement: Measurement) -> list[str]:
    row = measurement.row
    upstream = _link(row.upstream)
    if row.related:
        upstream += f" (related: {', '.join(map(_link, row.related))})"
    source = inspect.getsource(inspect.unwrap(find_demonstration(row)))
    return [
        "",
        f"({row.name})=",
        f"### {row.name}",
        "",
        row.what,
        "",
        f"- Layer: {row.layer} ({row.backend}, {row.dtype})",
        *_findings(measurement),
        f"- Upstream: {upstream}",
        f"- Here: {row.ours}",
        "",
        f":::{{dropdown}} `{row.module}.{row.function}`",
        "```python",
        source.rstrip(),
        "```",
        ":::",
    ]


def _findings(measurement: Measurement) -> list[str]:
    row, verdict = measurement.row, measurement.verdict
    if row.quantity == RAISES:
        measured, expected = _numbers(measurement)
        return [f"- Measured: {measured}, expected: {expected} ({verdict})"]
    return [
        f"- Measured, {row.quantity}: {measurement.value:.4g}, expected "
        f"{row.expected:.4g} ({verdict})",
        f"- On record: {row.measured:.4g} within {row.band:.2g} of the "
        f"difference ({row.origin})",
    ]


def _link(issue: str) -> str:
    return issue if issue == NOT_REPORTED else f"[{issue}]({issue_url(issue)})"


def to_json(measurements: Sequence[Measurement]) -> str:
    """Returns rows and numbers as JSON; a number that is no number is null."""

    def entry(measurement: Measurement) -> dict[str, Any]:
        row, value = measurement.row, measurement.value
        return {
            **dataclasses.asdict(row),
            "demonstration": f"{row.module}.{row.function}",
            "url": (
                None
                if row.upstream == NOT_REPORTED
                else issue_url(row.upstream)
            ),
            "value": value if math.isfinite(value) else None,
            "verdict": measurement.verdict,
        }

    return json.dumps([entry(m) for m in measurements], indent=2)


def issue_url(issue: str) -> str:
    """Returns the address of an issue such as `"flax #5576"`."""
    library, number = issue.split(" #")
    return f"https://github.com/{REPOSITORIES[library]}/issues/{number}"
