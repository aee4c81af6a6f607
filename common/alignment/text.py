"""Describes an alignment in words, and writes its rules."""

from typing import Any

from common.alignment.grouping import Line, grouped
from common.layouts import (
    Concatenate,
    Flip,
    Index,
    Layout,
    Reshape,
    Slice,
    Source,
    Stack,
    Step,
    Transpose,
)
from common.porting.folding import fold, fold_parts, terminal_width

MOST_SHOWN = 8
"""How many names of a list are shown."""


def chain(layout: "Layout | Source") -> str:
    """Returns a layout as it is written in a rule."""
    if isinstance(layout, Source):
        return layout.name
    parts = [chain(part) for part in layout.inputs]
    words = [parts[0]]
    if layout.join is not None:
        words = [f"[{'; '.join(parts)}]", _join(layout.join)]
    shape = layout.joined_shape
    for step in layout.steps:
        words.append(_step(step, shape))
        shape = step.output(shape)
    return " -> ".join(words)


def _join(join: Concatenate | Stack) -> str:
    word = "stack" if isinstance(join, Stack) else "concatenate"
    return f"{word}({join.axis})" if join.axis else word


def _step(step: Step, shape: tuple[int, ...]) -> str:
    match step:
        case Transpose(axes):
            reverse = axes == tuple(reversed(range(len(shape))))
            return "transpose" if reverse else f"transpose{axes}"
        case Reshape(sizes):
            return f"reshape({', '.join(map(str, sizes))})"
        case Flip(axes):
            return f"flip({', '.join(map(str, axes))})"
        case Slice(axis, start, stop):
            return f"slice({axis}, {start}, {stop})"
        case Index(axis, index):
            return f"index({axis}, {index})"
    return str(step)


def describe(found: Any, width: int | None = None) -> str:
    """Returns a description of an alignment, with equal layers together.

    Args:
        found: the alignment.
        width: the number of columns; by default that of the terminal.
    """
    width = terminal_width() if width is None else width
    lines = []
    for line in grouped(
        [
            Line(chain(layout), name, layout.shape)
            for name, layout in found.layouts.items()
        ]
    ):
        times = f"   ({line.count}x)" if line.count > 1 else ""
        lines += fold_parts([line.left, f"-> {line.right}{times}"], width)
    if lines:
        lines.append("")
    lines += _verdict(found)
    rest = [*_lists(found), *(f"note: {note}" for note in found.notes)]
    lines += [fold(line, width) for line in rest]
    cost = found.cost
    lines.append(
        f"cost: {cost.arrays[0]} and {cost.arrays[1]} arrays, cuts tried: "
        f"{cost.cuts}, runs: {cost.runs[0]} and {cost.runs[1]}, "
        f"{cost.seconds:.1f} s, {cost.memory / 2**30:.1f} GiB"
    )
    return "\n".join(lines)


def _verdict(found: Any) -> list[str]:
    inside = (
        "in float64"
        if found.precision == "float64"
        else f"the precision of the {found.precision} inside"
    )
    if found.status == "refused":
        lines = [f"refused: outputs differ by {found.agreement:.2g}"]
    else:
        verb = "agree to" if found.proved else "differ by"
        lines = [
            f"{found.status}: with random weights the outputs {verb} "
            f"{found.agreement:.1g} and the gradients "
            f"{verb.split()[1]} {found.gradients:.1g}, {inside}"
        ]
    if found.training is not None:
        lines.append(
            f"training mode: outputs to {found.training[0]:.1g}, updated "
            f"buffers to {found.training[1]:.1g}"
        )
    if found.divergence is not None and not found.divergence.ok:
        from common.alignment.divergences import describe_place

        lines += describe_place(found.divergence).splitlines()
    return lines


def _lists(found: Any) -> list[str]:
    lines = []
    for title, names in (
        ("no effect, left", found.unused[0]),
        ("no effect, right", found.unused[1]),
        ("no place, left", found.left_over),
        ("no source, right", found.right_over),
        ("constants, left", found.constants[0]),
        ("constants, right", found.constants[1]),
    ):
        if names:
            lines.append(f"{title}: {_names(names)}")
    if found.eliminated:
        pairs = [f"{a} -> {b}" for a, b in found.eliminated]
        lines.append(f"no effect, paired by elimination: {_names(pairs)}")
    ceiling = ""
    if found.precision != "float64":
        ceiling = f" to the precision of {found.precision}"
    for choice in found.choices:
        lines.append(
            f"either is right{ceiling}: {' or '.join(choice.lefts)} -> "
            f"{choice.right}"
        )
    for whole, parts in found.tied:
        lines.append(f"tied: {whole} stands for {', '.join(parts)}")
    return lines


def _names(names: Any) -> str:
    names = list(names)
    more = len(names) - MOST_SHOWN
    shown = ", ".join(names[:MOST_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown
