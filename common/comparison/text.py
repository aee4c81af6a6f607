"""A report on the terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

import rich.box
import rich.table
import rich.text

from common.comparison.report import Report
from common.comparison.rows import COUNTS, Row, ulps

NBSP = "\N{NO-BREAK SPACE}"


def render(report: Report) -> Iterator[Any]:
    """Yields a report's table and its verdict, as rich renderables."""
    table = rich.table.Table(
        title=f"{report.spec}, {report.dtype}, {report.steps} steps",
        box=rich.box.SIMPLE_HEAD,
        title_justify="left",
        padding=(0, 1, 0, 0),
    )
    table.add_column("quantity", no_wrap=True)
    for left, right in report.pairs:
        table.add_column(f"{left}\n~ {right}")
    for quantity, rows in by_quantity(report).items():
        table.add_row(quantity, *(cell(row, report.dtype) for row in rows))
    yield table
    yield rich.text.Text(report.verdict, "green" if report.ok else "bold red")


def by_quantity(report: Report) -> dict[str, list[Row]]:
    """Groups a report's rows: one for each pair, in the pairs' order."""
    table: dict[str, list[Row]] = {}
    for row in report.rows:
        table.setdefault(row.quantity, []).append(row)
    return table


def cell(row: Row, dtype: str) -> rich.text.Text:
    """Renders the largest difference, its tolerance and the verdict."""
    mark = "ok" if row.ok else "FAIL"
    words = [*amount(row, dtype), mark]
    # Breaks between the difference and its tolerance, and only there.
    head, tail = words[:-2], words[-2:]
    text = f"{NBSP.join(head)} {NBSP.join(tail)}"
    return rich.text.Text(text, "green" if row.ok else "bold red")


def amount(row: Row, dtype: str) -> Sequence[str]:
    """Returns a row's difference, in ULPs too in float32, and tolerance."""
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
