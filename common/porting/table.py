"""Prints a plan as a table."""

from typing import Any

import numpy as np

from common.porting.arrays import Infos
from common.porting.folding import fold, fold_parts, terminal_width
from common.porting.grammar import Call, Rule
from common.porting.grouping import Entry
from common.porting.patterns import Pattern
from common.porting.writing import rules_of

Row = tuple[str, str, str, str]
"""The source, what is done to it, the target, and how often."""


def table(plan: Any, width: int | None = None) -> str:
    """Returns the arrays of a plan: source, transform and target.

    Rules that differ only in a number are one line, with their count. If the
    table is too wide, its lines are folded.

    Args:
        plan: the plan.
        width: the number of columns; by default that of the terminal.
    """
    width = terminal_width() if width is None else width
    rows = [_row(plan, *pair) for pair in rules_of(plan)]
    for name, value in plan.derived.items():
        text = np.array2string(np.asarray(value), threshold=6)
        rows.append(
            (f"derived: {text}", "", _shaped(name, [name], plan.target), "")
        )
    lines = _aligned(rows)
    if max(map(len, lines), default=0) > width:
        lines = [line for row in rows for line in _unaligned(row, width)]
    rest = []
    for what, names, infos in (
        ("ignored", plan.ignored, plan.source),
        ("kept", plan.kept, plan.target),
    ):
        if names:
            shown = (_shaped(name, [name], infos) for name in names)
            rest.append(f"{what}: {', '.join(shown)}")
    for name, layout in plan.copies.items():
        others = ", ".join(source.name for source in layout.sources)
        shown = _shaped(name, [name], plan.source)
        rest.append(f"the same values: {shown} and {others}")
    rest += [f"note: {note}" for note in plan.notes]
    return "\n".join([*lines, *(fold(line, width) for line in rest)])


def _aligned(rows: list[Row]) -> list[str]:
    """Returns the lines of a table."""
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    lines = []
    for source, words, target, count in rows:
        middle = f"-> {words.ljust(widths[1])} " if widths[1] else ""
        line = f"{source.ljust(widths[0])} {middle}-> "
        lines.append((line + f"{target.ljust(widths[2])} {count}").rstrip())
    return lines


def _unaligned(row: Row, width: int) -> list[str]:
    """Returns a row on one line if it fits, and else on several."""
    source, words, target, count = row
    middle = f"-> {words}" if words else ""
    return fold_parts([source, middle, f"-> {target} {count}".rstrip()], width)


def _row(plan: Any, rule: Rule, entries: tuple[Entry, ...]) -> Row:
    sources = [n for entry in entries for n in entry.sources]
    targets = [n for entry in entries for n in entry.targets]
    if isinstance(rule.chain.source, Pattern):
        source = _shaped(str(rule.chain.source), sources, plan.source)
    else:
        source = str(rule.chain).split("] ->")[0] + "]"
    pieces = len(entries[0].targets)
    words = [_words(step, pieces) for step in rule.chain.steps]
    count = f"({len(entries)}x)" if len(entries) > 1 else ""
    shown = ", ".join(word for word in words if word)
    return (
        source,
        shown,
        _shaped(str(rule.target), targets, plan.target),
        count,
    )


def _words(step: Call, pieces: int) -> str:
    if step.word == "copy":
        return ""
    if step.word == "split" and not step.options:
        axis = f" along axis {step.arguments[0]}" if step.arguments else ""
        return f"split in {pieces}{axis}"
    return str(step)


def _shaped(text: str, names: list[str], infos: Infos) -> str:
    """Returns a name with the shape, if the arrays have one shape."""
    shapes = {infos[name].shape for name in names if name in infos}
    return f"{text} {shapes.pop()}" if len(shapes) == 1 else text
