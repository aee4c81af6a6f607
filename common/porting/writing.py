"""Writes a plan as rules."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from common.layouts import Index, Layout, Slice, Source, simplify
from common.porting.compilation import Compiled, compile_rules
from common.porting.grammar import Call, Chain, Rule, literal, parse
from common.porting.grouping import Entry, Group, group, is_writable, single
from common.porting.patterns import NOTHING, Pattern, quote
from common.porting.sides import Side
from common.porting.steps import write_join, write_step


def write_rules(plan: Any) -> str:
    """Writes a plan as text that `Plan.parse` reads."""
    lines = [f"# {note}" for note in plan.notes]
    lines += [str(rule) for rule, _ in rules_of(plan)]
    lines += map(str, _rules_of_copies(plan))
    for name, value in plan.derived.items():
        value = np.asarray(value).tolist()
        lines.append(f"derive({literal(value)}) -> {quote(name)}")
    lines += [f"{quote(name)} -> {NOTHING}" for name in plan.ignored]
    lines += [f"{NOTHING} -> {quote(name)}" for name in plan.kept]
    return "\n".join(lines)


def rules_of(plan: Any) -> list[tuple[Rule, tuple[Entry, ...]]]:
    """Returns the rules of a plan's layouts, and what each of them says."""
    left = Side.plain("source", plan.source)
    right = Side.plain("target", plan.target)
    found: list[tuple[Rule, tuple[Entry, ...]]] = []

    def confirm(candidate):
        return _says(candidate, plan.layouts, left, right)

    plain = []
    for entry in _entries(plan.layouts):
        if isinstance(entry, Rule):
            name = str(entry.target).strip('"')
            found.append((entry, (Entry((), (), (name,)),)))
        elif confirm(single(entry)):
            plain.append(entry)
        elif confirm(single(entry).bounded()):
            found.append((_rule(single(entry).bounded()), (entry,)))
        else:
            for name in entry.targets:
                rule = _written(plan.layouts[name], name)
                found.append((rule, (Entry((), (), (name,)),)))
    groups = group(plain, confirm)
    order = {name: i for i, name in enumerate(plan.layouts)}
    found += [(_rule(one), one.entries) for one in groups]

    def first(pair):
        return min(order.get(n, 0) for e in pair[1] for n in e.targets)

    return sorted(found, key=first)


def _rules_of_copies(plan: Any) -> Iterator[Rule]:
    """Yields the rules of copies, which lead from the target to the source.

    Where such a rule would be read as one of the other direction, the array
    is left out.
    """
    layouts = plan.inverse().layouts if plan.copies else {}
    for name in plan.copies:
        sources = {source.name for source in layouts[name].sources}
        if name in plan.target and sources <= plan.source.keys():
            yield Rule(Chain(Pattern((name,))), None)
        else:
            yield _written(layouts[name], name)


def _rule(one: Group) -> Rule:
    return Rule(Chain(one.source, one.steps), one.target)


def _says(
    candidate: Group, layouts: Mapping[str, Layout], left: Side, right: Side
) -> bool:
    """Tells whether a rule gives the layouts of its entries, and no others."""
    if not (is_writable(candidate.source) and is_writable(candidate.target)):
        return False
    try:
        rule = parse(str(_rule(candidate)))
        found: Compiled = compile_rules([rule], left, right)
    except ValueError:
        return False
    names = {name for entry in candidate.entries for name in entry.targets}
    return found.layouts == {name: layouts[name] for name in names}


def _entries(layouts: Mapping[str, Layout]) -> Iterator[Entry | Rule]:
    """Yields what each layout says, with the pieces of an array together."""
    pieces: dict[Any, list[str]] = {}
    for name, layout in layouts.items():
        if layout.join is None and isinstance(layout.inputs[0], Source):
            if layout.steps and isinstance(layout.steps[0], Slice | Index):
                first = layout.steps[0]
                key = layout.inputs[0], type(first), first.axis
                pieces.setdefault((*key, layout.steps[1:]), []).append(name)
                continue
            source = layout.inputs[0].name
            yield Entry((source,), _calls(layout), (name,))
        else:
            yield _joined(layout, name) or _written(layout, name)
    for (source, kind, axis, rest), names in pieces.items():
        yield from _cut(layouts, source, kind, axis, rest, names)


def _cut(
    layouts: Mapping[str, Layout],
    source: Source,
    kind: type,
    axis: int,
    rest: Any,
    names: list[str],
) -> Iterator[Entry]:
    """Yields the pieces of an array: as a whole if they cover it."""
    size = source.shape[axis]
    picks: dict[Any, str] = {layouts[name].steps[0]: name for name in names}
    axes = (axis,) if axis else ()
    if kind is Index:
        ordered: list[Any] = [Index(axis, i) for i in range(size)]
        call = Call("unstack", axes)
    else:
        ordered = sorted(picks, key=_start)
        sizes = tuple(pick.stop - pick.start for pick in ordered)
        stops = [0, *(pick.stop for pick in ordered)]
        starts = [*(pick.start for pick in ordered), size]
        call = Call("split", axes)
        if len(set(sizes)) > 1:
            call = Call("split", axes, (("sizes", sizes),))
        if starts != stops:
            ordered = []
    whole = len(ordered) > 1 and set(ordered) == set(picks)
    if whole and len(picks) == len(names):
        steps = (call, *map(write_step, rest))
        yield Entry((source.name,), steps, tuple(picks[p] for p in ordered))
        return
    for name in names:
        yield Entry((source.name,), _calls(layouts[name]), (name,))


def _start(pick: Any) -> int:
    return pick.start


def _calls(layout: Layout) -> tuple[Call, ...]:
    calls = tuple(map(write_step, layout.steps))
    if not calls and len(layout.shape) > 1:
        return (Call("copy"),)
    return calls


def _joined(layout: Layout, name: str) -> Entry | None:
    """Returns a join of arrays that are all treated alike, if it is one."""
    parts = [
        Layout((part,)) if isinstance(part, Source) else part
        for part in layout.inputs
    ]
    alike = len(parts) > 1 and all(
        part.join is None
        and isinstance(part.inputs[0], Source)
        and part.steps == parts[0].steps
        for part in parts
    )
    if not alike or layout.join is None:
        return None
    names = tuple(part.sources[0].name for part in parts)
    if len(set(names)) < len(names):
        return None
    steps = map(write_step, (*parts[0].steps,))
    after = map(write_step, layout.steps)
    return Entry(names, (*steps, write_join(layout.join), *after), (name,))


def _written(layout: Layout, name: str) -> Rule:
    """Returns the rule of one array, without placeholders."""
    return Rule(_chain(simplify(layout)), Pattern((name,)))


def _chain(layout: Layout) -> Chain:
    parts = [
        Chain(Pattern((part.name,)))
        if isinstance(part, Source)
        else _chain(part)
        for part in layout.inputs
    ]
    steps = tuple(map(write_step, layout.steps))
    if layout.join is None:
        inner = parts[0]
        rank = len(layout.shape)
        calls = inner.steps + steps
        if not calls and rank > 1:
            calls = (Call("copy"),)
        return dataclasses.replace(inner, steps=calls)
    return Chain(tuple(parts), (write_join(layout.join), *steps))
