"""Prints a plan as a table."""

from typing import Any

import numpy as np

from common.porting.arrays import Infos
from common.porting.grammar import Call, Rule
from common.porting.grouping import Entry
from common.porting.patterns import Pattern
from common.porting.writing import rules_of


def table(plan: Any) -> str:
    """Returns the arrays of a plan: source, transform and target.

    Rules that differ only in a number are one line, with their count.
    """
    rows = [_row(plan, *pair) for pair in rules_of(plan)]
    for name, value in plan.derived.items():
        text = np.array2string(np.asarray(value), threshold=6)
        rows.append(
            (f"derived: {text}", "", _shaped(name, [name], plan.target), "")
        )
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    lines = []
    for source, words, target, count in rows:
        middle = f"-> {words.ljust(widths[1])} " if widths[1] else ""
        line = f"{source.ljust(widths[0])} {middle}-> "
        lines.append((line + f"{target.ljust(widths[2])} {count}").rstrip())
    for what, names, infos in (
        ("ignored", plan.ignored, plan.source),
        ("kept", plan.kept, plan.target),
    ):
        if names:
            shown = (_shaped(name, [name], infos) for name in names)
            lines.append(f"{what}: {', '.join(shown)}")
    for name, layout in plan.copies.items():
        others = ", ".join(source.name for source in layout.sources)
        shown = _shaped(name, [name], plan.source)
        lines.append(f"the same values: {shown} and {others}")
    lines += [f"note: {note}" for note in plan.notes]
    return "\n".join(lines)


def _row(
    plan: Any, rule: Rule, entries: tuple[Entry, ...]
) -> tuple[str, str, str, str]:
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
