"""A diff as one self-contained HTML page: no script, nothing to load."""

import functools
import json
import linecache
import math
from collections.abc import Mapping
from typing import Any

from common.divergence.interpret import Node
from common.divergence.search import SIDES, Diff
from common.divergence.sources import Frame, shown
from common.divergence.text import operation
from common.rendering.pages import find_template

AROUND = 6
"""Lines of source above and below a marked one."""
WIDTH, HEIGHT, MARGIN = 720, 260, 56
FLOOR = 1e-17
"""Where values that are equal bit for bit are drawn."""


def render(found: Diff, names: tuple[str, str], facts: Mapping) -> str:
    """Returns the page.

    Args:
        found: the diff.
        names: what the two functions are called.
        facts: versions, device, command, date.
    """
    return find_template("diff.html.jinja").render(
        found=found,
        names=dict(zip(SIDES, names, strict=True)),
        apart=[it for it in found.outputs if not it.ok],
        origins=[
            {
                "reason": origin.reason,
                "sides": {
                    side: _place(getattr(origin, side)) for side in SIDES
                },
            }
            for origin in found.origins
        ],
        plot=_plot(found),
        environment=facts,
    )


def plot(found: Diff) -> str:
    """Returns the plot of the page alone, as SVG."""
    return find_template("diff_plot.svg.jinja").render(plot=_plot(found))


def to_json(found: Diff, facts: Mapping) -> str:
    """Returns outputs, origins and matched values as JSON."""

    def node(it: Node | None) -> dict[str, Any] | None:
        if it is None:
            return None
        return {
            "number": it.number,
            "primitive": it.primitive,
            "operation": operation(it),
            "shape": it.shape,
            "dtype": it.dtype,
            "module": it.module,
            "iterations": it.iterations,
            "frames": [frame._asdict() for frame in it.frames],
        }

    def finite(x: float) -> float | None:
        return x if math.isfinite(x) else None

    return json.dumps(
        {
            "environment": facts,
            "ok": found.ok,
            "seconds": found.seconds,
            "counts": [len(it.nodes) for it in found.records],
            "notes": [it.notes for it in found.records],
            "outputs": [
                {"path": it.path, "ok": it.ok, "off": finite(it.off)}
                for it in found.outputs
            ],
            "origins": [
                {
                    "reason": it.reason,
                    "off": None if it.off is None else finite(it.off),
                    "left": node(it.left),
                    "right": node(it.right),
                }
                for it in found.origins
            ],
            "ceilings": [node(it) for it in found.ceilings],
            "values of the left": [
                {
                    "left": it.left.number,
                    "right": it.right.number,
                    "off": finite(it.off),
                    "matched": it.matched,
                }
                for it in found.growth()
            ],
        },
        indent=1,
    )


def _place(node: Node | None) -> dict[str, Any] | None:
    if node is None:
        return None
    return {
        "operation": operation(node),
        "module": node.module,
        "excerpts": [_excerpt(frame) for frame in shown(node.frames)],
    }


@functools.cache
def _excerpt(frame: Frame) -> dict[str, Any]:
    """A line of source among its neighbours."""
    first = max(1, frame.line - AROUND)
    numbers = range(first, frame.line + AROUND + 1)
    lines = [
        {
            "number": number,
            "text": linecache.getline(frame.file, number).rstrip(),
            "marked": number == frame.line,
        }
        for number in numbers
        if linecache.getline(frame.file, number)
    ]
    return {"title": str(frame), "lines": lines}


def _plot(found: Diff) -> dict[str, Any]:
    """Lays out how far matched values are apart, along the left program."""
    growth = found.growth()
    last = max(1, len(found.records[0].nodes) - 1)
    top = max([1e-8, *(it.off for it in growth)])
    marks = [it.left.number for it in found.origins if it.left is not None]

    def x(number: int) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * number / last

    def y(off: float) -> float:
        share = math.log(max(off, FLOOR) / FLOOR) / math.log(top / FLOOR)
        return HEIGHT - 36 - (HEIGHT - 60) * share

    return {
        "dots": [
            {
                "x": f"{x(it.left.number):.1f}",
                "y": f"{y(it.off):.1f}",
                "color": "--dot, #2f86cc" if it.matched else "--bad, #cf222e",
                "title": f"{operation(it.left)}: {it.off:.2g}",
            }
            for it in growth
        ],
        "marks": [f"{x(number):.1f}" for number in marks],
        "ticks": [
            {"y": f"{y(10.0**power):.1f}", "text": f"1e{power}"}
            for power in range(-16, int(math.log10(top)) + 1, 4)
        ],
        "size": (WIDTH, HEIGHT, MARGIN),
    }
