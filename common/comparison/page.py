"""A report as one self-contained HTML page without scripts."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.comparison.report import Report
from common.comparison.rows import (
    MIXED_QUANTITIES,
    MODEL_QUANTITIES,
    QUANTITIES,
    Row,
)
from common.comparison.text import describe_error, group_by_quantity
from common.rendering.pages import find_template
from common.rendering.plots import Axis, Margins, Plot


def render(reports: Sequence[Report], environment: Mapping[str, Any]) -> str:
    """Returns a page with the verdicts, and a plot and table per report."""
    return find_template("report.html.jinja").render(
        reports=[
            {
                "report": report,
                "rows": list(_rows(report)),
                "plot": plot_losses(report.losses),
            }
            for report in reports
        ],
        environment=environment,
        ok=all(report.ok for report in reports),
    )


def plot_losses(losses: Mapping[str, Sequence[float]]) -> str:
    """Plots the loss of every step by backend, as SVG.

    The axis is logarithmic if every loss is positive. Losses that are not
    finite are left out.
    """
    curves = {
        name: [
            (step, float(loss))
            for step, loss in enumerate(values, 1)
            if math.isfinite(loss)
        ]
        for name, values in losses.items()
    }
    shown = [loss for curve in curves.values() for _, loss in curve]
    low, high = (min(shown), max(shown)) if shown else (0.1, 1.0)
    log = low > 0
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 1, high + 1)
    last = max(2, *(len(values) for values in losses.values()))
    plot = Plot(
        Axis(1, last),
        Axis(low, high, log=log),
        label="Loss of every step, by backend",
        height=260,
        margins=Margins(right=110),
    )
    plot.add_grid("y", plot.y.round_values())
    steps = [step for step in plot.x.round_values() if step.is_integer()]
    plot.add_grid("x", steps)
    plot.add_title("training step (the vertical axis is the loss)")
    for i, (name, curve) in enumerate(curves.items()):
        # The dash patterns keep curves that coincide visible.
        plot.add_line(curve, f"series-{i}")
        y = plot.margins.top + 10 + 18 * i
        plot.add_pixels(
            plot.right + 8, y, plot.right + 38, y, f"line series-{i}"
        )
        plot.add_text(plot.right + 44, y + 4, name, "start")
    return plot.svg()


def _rows(report: Report) -> Iterator[dict[str, Any]]:
    meanings = MODEL_QUANTITIES if report.spec is None else QUANTITIES
    meanings = meanings | MIXED_QUANTITIES
    for quantity, rows in group_by_quantity(report).items():
        yield {
            "quantity": quantity,
            "meaning": meanings[quantity],
            "cells": [_cell(report, row) for row in rows],
        }


def _cell(report: Report, row: Row | None) -> dict[str, Any]:
    if row is None:
        return {"text": "", "ok": None, "place": ""}
    words = describe_error(row, row.dtype or report.dtype)
    return {"text": " ".join(words), "ok": row.ok, "place": _place(row)}


def _place(row: Row) -> str:
    if row.worst.error == 0:
        return ""
    return f"step {row.worst.step} {row.worst.leaf}".strip()
