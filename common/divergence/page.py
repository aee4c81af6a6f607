"""A `Diff` as one self-contained HTML page without scripts, or as JSON."""

import functools
import linecache
import math
from collections.abc import Mapping
from typing import Any

from common.divergence.record import Node
from common.divergence.result import SIDES, Diff
from common.divergence.sources import Frame, select_frames
from common.divergence.text import MAX_SHOWN, operation, reason
from common.rendering.files import to_json as dump
from common.rendering.pages import find_template
from common.rendering.plots import Axis, Margins, Plot

CONTEXT_LINES = 6
"""Lines of source above and below a marked one."""
SMALLEST_ERROR = 1e-17
"""Where values that are equal bit for bit are drawn."""
LARGEST_TICK = 1e-8
"""The plot reaches at least up to this error."""


def render(found: Diff, names: tuple[str, str], facts: Mapping) -> str:
    """Returns the page.

    Args:
        found: the result of the comparison.
        names: the names of the two functions.
        facts: versions, device, command and date.
    """
    return find_template("diff.html.jinja").render(
        found=found,
        names=dict(zip(SIDES, names, strict=True)),
        failed=[output for output in found.outputs if not output.ok],
        origins=[
            {
                "reason": reason(origin),
                # The sentence has the error if nothing else is known.
                "error": origin.error if origin.reason else None,
                "sides": {
                    side: _place(getattr(origin, side)) for side in SIDES
                },
            }
            for origin in found.origins[:MAX_SHOWN]
        ],
        more=max(0, len(found.origins) - MAX_SHOWN),
        plot=plot(found),
        dots=len(found.nearest_values()),
        environment=facts,
    )


def plot(found: Diff) -> str:
    """Plots the error of matched values along the left program, as SVG."""
    values = found.nearest_values()
    drawing = Plot(
        Axis(0, max(1, len(found.records[0].nodes) - 1)),
        Axis(
            SMALLEST_ERROR,
            max([LARGEST_TICK, *(value.error for value in values)]),
            log=True,
        ),
        label="Error of matched values along the program",
        height=260,
        margins=Margins(left=56),
    )
    highest = math.floor(math.log10(drawing.y.high))
    drawing.add_grid("y", [10.0**i for i in range(-16, highest + 1, 4)])
    for origin in found.origins:
        if origin.left is not None:
            drawing.add_rule("x", origin.left.number, "divergence")
    for value in values:
        drawing.add_dot(
            value.left.number,
            max(value.error, SMALLEST_ERROR),
            "matched" if value.is_match else "unmatched",
            f"{operation(value.left)}: {value.error:.2g}",
        )
    drawing.add_title("values of the left program, in execution order")
    return drawing.svg()


def to_json(found: Diff, facts: Mapping) -> str:
    """Returns outputs, origins and matched values as JSON."""

    def node(value: Node | None) -> dict[str, Any] | None:
        if value is None:
            return None
        return {
            "number": value.number,
            "primitive": value.primitive,
            "operation": operation(value),
            "shape": value.shape,
            "dtype": value.dtype,
            "module": value.module,
            "iterations": value.iterations,
            "frames": value.frames,
        }

    return dump(
        {
            "environment": facts,
            "ok": found.ok,
            "seconds": found.seconds,
            "counts": [len(record.nodes) for record in found.records],
            "hidden": found.hidden,
            "missing": found.missing,
            "notes": [record.notes for record in found.records],
            "outputs": [
                {"path": output.path, "ok": output.ok, "error": output.error}
                for output in found.outputs
            ],
            "origins": [
                {
                    "reason": origin.reason,
                    # The sentence has the error if nothing else is known.
                    "error": origin.error if origin.reason else None,
                    "left": node(origin.left),
                    "right": node(origin.right),
                }
                for origin in found.origins
            ],
            "ceilings": [node(ceiling) for ceiling in found.ceilings],
            "nearest values": [
                {
                    "left": value.left.number,
                    "right": value.right.number,
                    "error": value.error,
                    "is_match": value.is_match,
                }
                for value in found.nearest_values()
            ],
        }
    )


def _place(node: Node | None) -> dict[str, Any] | None:
    if node is None:
        return None
    return {
        "operation": operation(node),
        "module": node.module or input_module(node),
        "norm": node.norm,
        "values": [f"{x:.6g}" for x in node.fingerprint.ranks[[0, -1]]]
        if len(node.fingerprint.ranks)
        else [],
        "excerpts": [_excerpt(frame) for frame in select_frames(node.frames)],
    }


def input_module(node: Node) -> str:
    """Returns the path of the module that an input is an array of."""
    return node.label.rpartition(".")[0] if node.primitive == "input" else ""


@functools.cache
def _excerpt(frame: Frame) -> dict[str, Any]:
    """Returns a line of source and the lines around it."""
    first = max(1, frame.line - CONTEXT_LINES)
    numbers = range(first, frame.line + CONTEXT_LINES + 1)
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
