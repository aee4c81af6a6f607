"""Describes a `Diff` in words."""

import linecache
from typing import Any

from common.divergence.reasons import number_text
from common.divergence.record import Node
from common.divergence.result import SIDES, Origin
from common.divergence.sources import select_frames

MAX_SHOWN = 3
"""How many outputs and origins are described; the rest are counted."""
WIDTH = 80
INDENT = " " * 8


def render(found: Any) -> str:
    """Returns a description that fits into 80 columns."""
    left, right = found.records
    lines = []
    if found.ok:
        lines.append(
            f"All outputs agree; {len(left.nodes)} and {len(right.nodes)} "
            "values were computed."
        )
    if found.ok and found.hidden is not None:
        lines += _ceiling(found)
    for missing in found.missing:
        lines.append(missing)
    for output in found.outputs:
        if output.ok and output.left.shape != output.right.shape:
            lines.append(
                f"note: output{output.path} has the shape {output.left.shape} "
                f"on the left and {output.right.shape} on the right; the "
                "values agree"
            )
    failed = [output for output in found.outputs if not output.ok]
    for output in failed[:MAX_SHOWN]:
        lines.append(
            f"output{output.path} differs: relative error {output.error:.3g}"
        )
    if len(failed) > MAX_SHOWN:
        lines.append(f"and {len(failed) - MAX_SHOWN} more outputs differ")
    for i, origin in enumerate(found.origins[:MAX_SHOWN]):
        lines.append("The programs diverge at" if i == 0 else "and at")
        lines.append(f"  {reason(origin)}")
        for side in SIDES:
            node = getattr(origin, side)
            if node is None:
                lines.append(f"  {side:<5} no matching operation")
            else:
                lines += describe(side, node)
    if len(found.origins) > MAX_SHOWN:
        more = len(found.origins) - MAX_SHOWN
        lines.append(f"and at {more} more places, listed in `origins`")
    ceilings = zip(SIDES, found.ceilings, strict=True)
    for side, node in () if found.ok and found.hidden else ceilings:
        if node is not None:
            lines.append(f"precision ceiling of the {side}: {node.dtype} at")
            lines += describe(side, node)
    for side, record in zip(SIDES, found.records, strict=True):
        lines += [f"note, {side}: {note}" for note in record.notes]
    return "\n".join(lines)


def reason(origin: Origin) -> str:
    """Returns what is known about an origin, in one sentence."""
    if origin.reason:
        return origin.reason
    return (
        "computed from the same values, with a relative error of "
        f"{origin.error:.3g}"
    )


def describe(side: str, node: Node) -> list[str]:
    """Describes a value: the operation, its module and its source lines."""
    lines = [f"  {side:<5} {operation(node)}"]
    if node.module:
        lines.append(f"{INDENT}in {node.module}")
    for i, frame in enumerate(select_frames(node.frames)):
        lines.append(f"{INDENT}{'<- ' if i else ''}{frame}")
        source = linecache.getline(frame.file, frame.line).strip()
        if source:
            lines.append(f"{INDENT}   | {source}"[:WIDTH])
    return lines


def _ceiling(found: Any) -> list[str]:
    """Says what difference a cast to a narrower dtype can hide."""
    lines = []
    for node in found.ceilings:
        if node is not None:
            frames = select_frames(node.frames)
            where = f" set at {frames[0]}" if frames else ""
            lines.append(
                f"They agree to the precision ceiling{where}: {node.dtype}."
            )
    lines.append(
        "The programs round different values, which can hide a relative error "
        f"of {found.hidden:.2g}."
    )
    lines.append("Pass dtype=None to run both in their own dtypes.")
    return list(dict.fromkeys(lines))


def operation(node: Node) -> str:
    """Describes an operation by its literals, dtype, shape and iteration."""
    words = [" ".join(filter(None, (node.primitive, node.label)))]
    words += [f"literal {number_text(literal)}" for literal in node.literals]
    words.append(f"{node.dtype}[{','.join(map(str, node.shape))}]")
    if node.iterations:
        words.append(f"iteration {'/'.join(map(str, node.iterations))}")
    return ", ".join(words)
