"""What `diff` found, in words."""

from typing import Any

import numpy as np

from common.divergence.interpret import Node
from common.divergence.sources import shown

SHOWN = 3
"""How many outputs and origins are told in words; the rest are counted."""


def render(found: Any) -> str:
    """Returns a text that is readable at 80 columns."""
    left, right = found.records
    lines = []
    if found.ok:
        lines.append(
            f"All outputs agree; {len(left.nodes)} and {len(right.nodes)} "
            "values were computed."
        )
    for it in found.outputs:
        if it.ok and it.left.shape != it.right.shape:
            lines.append(
                f"note: output{it.path} has the shape {it.left.shape} on the "
                f"left and {it.right.shape} on the right; the values agree"
            )
    apart = [it for it in found.outputs if not it.ok]
    for it in apart[:SHOWN]:
        lines.append(f"output{it.path} is off by {it.off:.3g}")
    if len(apart) > SHOWN:
        lines.append(f"and {len(apart) - SHOWN} more of the outputs are off")
    for i, origin in enumerate(found.origins[:SHOWN]):
        lines.append("The two part at" if i == 0 else "and at")
        if origin.reason:
            lines.append(f"  {origin.reason}")
        for side in ("left", "right"):
            node = getattr(origin, side)
            if node is None:
                lines.append(f"  {side:<5} nothing alike")
            else:
                lines += describe(side, node)
    if len(found.origins) > SHOWN:
        more = len(found.origins) - SHOWN
        lines.append(f"and at {more} more, see `origins`")
    for side, node in zip(("left", "right"), found.ceilings, strict=True):
        if node is not None:
            lines.append(f"precision ceiling of the {side}: {node.dtype} at")
            lines += describe(side, node)
    for side, record in zip(("left", "right"), found.records, strict=True):
        lines += [f"note, {side}: {it}" for it in record.notes]
    return "\n".join(lines)


def describe(side: str, node: Node) -> list[str]:
    """Says which value is meant: the operation, its module, its lines."""
    lines = [f"  {side:<5} {operation(node)}"]
    if node.module:
        lines.append(f"        in {node.module}")
    for i, frame in enumerate(shown(node.frames)):
        lines.append(f"        {'<- ' if i else ''}{frame}")
    return lines


def operation(node: Node) -> str:
    """Names an operation with what makes it this one."""
    words = [" ".join(filter(None, (node.primitive, node.label)))]
    words += [f"literal {_number(it)}" for it in node.literals]
    words.append(f"{node.dtype}[{','.join(map(str, node.shape))}]")
    if node.iterations:
        words.append(f"iteration {'/'.join(map(str, node.iterations))}")
    return ", ".join(words)


def _number(x: np.ndarray) -> str:
    return f"{x:.6g}" if x.dtype.kind == "f" else str(x)
