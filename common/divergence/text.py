"""Describes a `Diff` in words."""

from typing import Any

import numpy as np

from common.divergence.interpret import Node
from common.divergence.sources import select_frames

MAX_SHOWN = 3
"""How many outputs and origins are described; the rest are counted."""


def render(found: Any) -> str:
    """Returns a description that fits into 80 columns."""
    left, right = found.records
    lines = []
    if found.ok:
        lines.append(
            f"All outputs agree; {len(left.nodes)} and {len(right.nodes)} "
            "values were computed."
        )
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
        if origin.reason:
            lines.append(f"  {origin.reason}")
        for side in ("left", "right"):
            node = getattr(origin, side)
            if node is None:
                lines.append(f"  {side:<5} no matching operation")
            else:
                lines += describe(side, node)
    if len(found.origins) > MAX_SHOWN:
        more = len(found.origins) - MAX_SHOWN
        lines.append(f"and at {more} more places, listed in `origins`")
    for side, node in zip(("left", "right"), found.ceilings, strict=True):
        if node is not None:
            lines.append(f"precision ceiling of the {side}: {node.dtype} at")
            lines += describe(side, node)
    for side, record in zip(("left", "right"), found.records, strict=True):
        lines += [f"note, {side}: {note}" for note in record.notes]
    return "\n".join(lines)


def describe(side: str, node: Node) -> list[str]:
    """Describes a value: the operation, its module and its source lines."""
    lines = [f"  {side:<5} {operation(node)}"]
    if node.module:
        lines.append(f"        in {node.module}")
    for i, frame in enumerate(select_frames(node.frames)):
        lines.append(f"        {'<- ' if i else ''}{frame}")
    return lines


def operation(node: Node) -> str:
    """Describes an operation by its literals, dtype, shape and iteration."""
    words = [" ".join(filter(None, (node.primitive, node.label)))]
    words += [f"literal {_number(literal)}" for literal in node.literals]
    words.append(f"{node.dtype}[{','.join(map(str, node.shape))}]")
    if node.iterations:
        words.append(f"iteration {'/'.join(map(str, node.iterations))}")
    return ", ".join(words)


def _number(x: np.ndarray) -> str:
    return f"{x:.6g}" if x.dtype.kind == "f" else str(x)
