"""A report as a table on the terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

import rich.text

from common.comparison.report import Report
from common.comparison.rows import COUNTS, Row, ulps
from common.rendering.tables import Column, Table, render_table

NBSP = "\N{NO-BREAK SPACE}"


def render(report: Report) -> Iterator[Any]:
    """Yields a report's table and its verdict, as rich renderables."""
    yield render_table(
        Table(
            f"{report.title}, {report.dtype}, {report.steps} steps",
            (
                Column("quantity", wrap=False),
                *(
                    f"{left}\n~ {right}" + (f"\n{dtype}" if dtype else "")
                    for left, right, dtype in report.columns
                ),
            ),
            [
                (
                    quantity,
                    *(
                        ""
                        if row is None
                        else cell(row, row.dtype or report.dtype)
                        for row in rows
                    ),
                )
                for quantity, rows in group_by_quantity(report).items()
            ],
        )
    )
    yield rich.text.Text(
        report.explanation, "green" if report.ok else "bold red"
    )


def group_by_quantity(report: Report) -> dict[str, list[Row | None]]:
    """Groups a report's rows: one for each column, `None` if it has none."""
    by_place = {
        (row.quantity, row.left, row.right, row.dtype): row
        for row in report.rows
    }
    return {
        quantity: [
            by_place.get((quantity, *place)) for place in report.columns
        ]
        for quantity in dict.fromkeys(row.quantity for row in report.rows)
    }


def cell(row: Row, dtype: str) -> rich.text.Text:
    """Renders the largest error, its tolerance and the verdict."""
    mark = "ok" if row.ok else "FAIL"
    words = [*describe_error(row, dtype), mark]
    # A line break is allowed before the tolerance, and only there.
    head, tail = words[:-2], words[-2:]
    text = f"{NBSP.join(head)} {NBSP.join(tail)}"
    return rich.text.Text(text, "green" if row.ok else "bold red")


def describe_error(row: Row, dtype: str) -> Sequence[str]:
    """Returns a row's error and tolerance, in float32 also in ULPs."""
    value, bound = row.worst.error, row.tolerance
    if row.quantity in COUNTS:
        return [f"{value:.0f}", "=0"]
    if bound == 0:
        return [_short(value), "=0"]
    if dtype == "float64":
        return [_short(value), f"≤{_short(bound)}"]
    return [
        _short(value),
        f"{_short_ulps(ulps(value, dtype))}u",
        f"≤{_short_ulps(ulps(bound, dtype))}u",
    ]


def _short(x: float) -> str:
    if x == 0:
        return "0"
    return f"{x:.1e}".replace(".0e", "e").replace("e-0", "e-")


def _short_ulps(x: float) -> str:
    if x < 9.5:
        return f"{x:.2g}"
    if x < 99999:
        return f"{x:.0f}"
    return f"{x:.1e}".replace(".0e", "e").replace("e+0", "e")
