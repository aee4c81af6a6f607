"""A report as one self-contained HTML page: no script, nothing to load."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.comparison.report import Report
from common.comparison.rows import QUANTITIES, Row
from common.comparison.text import amount, by_quantity
from common.rendering.pages import find_template

WIDTH, HEIGHT, MARGIN = 640, 240, 64
# Dash patterns keep curves that lie on each other visible, and readable
# without colour.
STROKES = (
    ("#4c72b0", "5", "none"),
    ("#dd8452", "3", "9 7"),
    ("#2a2a2a", "1.5", "2 6"),
)


class Curve(NamedTuple):
    """A polyline of the plot."""

    name: str
    points: str
    color: str
    width: str
    dashes: str


def render(reports: Sequence[Report], environment: Mapping[str, Any]) -> str:
    """Returns the page: the verdicts, then a plot and a table a report."""
    return find_template("report.html.jinja").render(
        reports=[
            {
                "report": report,
                "rows": list(_rows(report)),
                "curves": list(curves(report.losses)),
                "ticks": list(_ticks(report.losses)),
            }
            for report in reports
        ],
        environment=environment,
        ok=all(report.ok for report in reports),
        size=(WIDTH, HEIGHT, MARGIN),
    )


def _rows(report: Report) -> Iterator[dict[str, Any]]:
    for quantity, rows in by_quantity(report).items():
        yield {
            "quantity": quantity,
            "meaning": QUANTITIES[quantity],
            "cells": [
                {
                    "text": " ".join(amount(row, report.dtype)),
                    "ok": row.ok,
                    "place": _place(row),
                }
                for row in rows
            ],
        }


def _place(row: Row) -> str:
    if row.worst.error == 0:
        return ""
    return f"step {row.worst.step} {row.worst.leaf}".strip()


def curves(losses: Mapping[str, Sequence[float]]) -> Iterator[Curve]:
    """Lays the losses out in the plot, on a logarithmic axis."""
    low, high = _limits(losses)
    for (name, values), (color, width, dashes) in zip(
        losses.items(), STROKES, strict=False
    ):
        points = [
            f"{_x(i, len(values)):.1f},{_y(value, low, high):.1f}"
            for i, value in enumerate(values)
            if np.isfinite(value) and value > 0
        ]
        yield Curve(name, " ".join(points), color, width, dashes)


def _ticks(losses: Mapping[str, Sequence[float]]) -> Iterator[dict[str, Any]]:
    low, high = _limits(losses)
    for value in np.geomspace(low, high, 3):
        yield {"y": f"{_y(value, low, high):.1f}", "text": f"{value:.3g}"}


def _limits(losses: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    values = np.concatenate([np.asarray(v, float) for v in losses.values()])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return 0.1, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low / 2, high * 2)


def _x(i: int, n: int) -> float:
    return MARGIN + (WIDTH - 2 * MARGIN) * i / max(n - 1, 1)


def _y(value: float, low: float, high: float) -> float:
    share = np.log(value / low) / np.log(high / low)
    return HEIGHT - MARGIN / 2 - (HEIGHT - MARGIN) * share
