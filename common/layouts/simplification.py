"""Rules that give a layout the same result in fewer steps."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from common.layouts.joins import Concatenate, Join, Stack
from common.layouts.layout import Layout, Source
from common.layouts.steps import (
    Cast,
    Flip,
    Index,
    KeyData,
    Pick,
    Reshape,
    Shape,
    Slice,
    Step,
    Transpose,
    WrapKeyData,
)


def simplify(layout: Layout) -> Layout:
    """Returns a layout that makes the same array in fewer steps."""
    old, new = None, layout
    while old != new:
        old, new = new, _simplify_once(new)
    return new


def _simplify_once(layout: Layout) -> Layout:
    inputs = tuple(
        part if isinstance(part, Source) else _unwrap(simplify(part))
        for part in layout.inputs
    )
    join, steps = layout.join, layout.steps
    if join is None and isinstance(inputs[0], Layout):
        inner = inputs[0]
        return dataclasses.replace(inner, steps=inner.steps + steps)
    layout = Layout(inputs, join, steps)
    steps = simplify_steps(layout.joined_shape, steps)
    if join is None:
        return Layout(inputs, None, steps)
    if len(inputs) == 1 and isinstance(join, Concatenate):
        return Layout(inputs, None, steps)
    if steps and isinstance(steps[0], Pick):
        chosen = _pick_of_join(inputs, join, steps[0])
        if chosen is not None:
            return dataclasses.replace(chosen, steps=chosen.steps + steps[1:])
    whole = _join_of_picks(inputs, join)
    if whole is not None:
        return dataclasses.replace(whole, steps=whole.steps + steps)
    return Layout(inputs, join, steps)


def _unwrap(layout: Layout) -> "Source | Layout":
    plain = layout.join is None and not layout.steps
    return layout.inputs[0] if plain else layout


def _wrap(part: "Source | Layout") -> Layout:
    return Layout((part,)) if isinstance(part, Source) else part


def _pick_of_join(inputs: Any, join: Join, pick: Pick) -> Layout | None:
    """Moves a pick in front of a join, or drops the parts it leaves out."""
    if pick.axis != join.axis:
        inner, outer = pick, join
        if isinstance(join, Stack) and pick.axis > join.axis:
            inner = dataclasses.replace(pick, axis=pick.axis - 1)
        if isinstance(pick, Index) and pick.axis < join.axis:
            outer = dataclasses.replace(join, axis=join.axis - 1)
        return Layout(tuple(_wrap(x).then(inner) for x in inputs), outer)
    if isinstance(join, Stack):
        if isinstance(pick, Index):
            return _wrap(inputs[pick.index])
        chosen = inputs[pick.start : pick.stop]
        return Layout(chosen, Stack(join.axis, len(chosen)))
    if isinstance(pick, Index):
        return None
    chosen, sizes, start = [], [], 0
    for part, size in zip(inputs, join.sizes, strict=True):
        low, high = max(pick.start, start), min(pick.stop, start + size)
        if low < high:
            piece = Slice(join.axis, low - start, high - start)
            chosen.append(_wrap(part).then(piece))
            sizes.append(high - low)
        start += size
    if not chosen:
        return None
    return Layout(tuple(chosen), Concatenate(join.axis, tuple(sizes)))


def _join_of_picks(inputs: Any, join: Join) -> Layout | None:
    """Finds the array of which a join puts all pieces together again."""
    parts = [_wrap(part) for part in inputs]
    if not parts or not all(
        part.steps
        and isinstance(part.steps[0], Pick)
        and (part.inputs, part.join) == (parts[0].inputs, parts[0].join)
        and part.steps[1:] == parts[0].steps[1:]
        for part in parts
    ):
        return None
    picks: list[Any] = [part.steps[0] for part in parts]
    rest, first = parts[0].steps[1:], picks[0]
    whole = dataclasses.replace(parts[0], steps=())
    size = whole.shape[first.axis]
    if isinstance(join, Stack):
        wanted = [Index(0, i) for i in range(size)]
        if join.axis != 0 or picks != wanted:
            return None
        return whole.then(*(step.lifted((size,)) for step in rest))
    if not isinstance(first, Slice):
        return None
    stops = [pick.stop for pick in picks]
    if [first.start, *stops[:-1]] != [pick.start for pick in picks] or any(
        pick.axis != first.axis for pick in picks
    ):
        return None
    axis = first.axis
    for step in rest:
        if not isinstance(step, Transpose):
            return None
        axis = step.axes.index(axis)
    if axis != join.axis:
        return None
    return whole.then(Slice(first.axis, first.start, stops[-1]), *rest)


def simplify_steps(shape: Shape, steps: Iterable[Step]) -> tuple[Step, ...]:
    """Returns fewer steps that give the same result.

    Inverse pairs vanish, neighbors of one kind merge, and pieces are taken
    first, so that the other steps act on less.
    """
    steps = list(steps)
    i, before = 0, [shape]
    while i < len(steps):
        here = before[i]
        new = _simplify_one(here, steps[i])
        size = 1
        if new is None and i + 1 < len(steps):
            new = _simplify_two(here, steps[i], steps[i + 1])
            size = 2
        if new is None:
            before.append(steps[i].output(here))
            i += 1
            continue
        steps[i : i + size] = new
        i = max(i - 1, 0)
        del before[i + 1 :]
    return tuple(steps)


def _simplify_one(shape: Shape, step: Step) -> list[Step] | None:
    """Drops a step that does nothing; `None` where there is no rule."""
    if isinstance(step, Reshape):
        return [] if step.shape == shape else None
    if isinstance(step, Transpose):
        if step.axes == tuple(range(len(shape))):
            return []
        long = [axis for axis in step.axes if shape[axis] != 1]
        return [Reshape(step.output(shape))] if long == sorted(long) else None
    if isinstance(step, Flip):
        long = tuple(sorted(a for a in set(step.axes) if shape[a] != 1))
        if not long:
            return []
        return None if long == step.axes else [Flip(long)]
    if isinstance(step, Slice):
        whole = (step.start, step.stop) == (0, shape[step.axis])
        return [] if whole else None
    if isinstance(step, Cast):
        return [] if step.source == step.target else None
    return None


def _simplify_two(shape: Shape, a: Step, b: Step) -> list[Step] | None:
    """Merges or swaps two steps; `None` where there is no rule."""
    if isinstance(b, Slice | Index):
        return _pick_first(shape, a, b)
    match a, b:
        case Transpose(), Transpose():
            return [Transpose(tuple(a.axes[axis] for axis in b.axes))]
        case Reshape(), Reshape():
            return [b]
        case Flip(), Flip():
            return [Flip(tuple(sorted(set(a.axes) ^ set(b.axes))))]
        case Flip(), Transpose():
            return [b, Flip(tuple(sorted(map(b.axes.index, a.axes))))]
        case Cast(), Cast():
            same = a.source == b.target and a.target == b.source
            return [] if same else None
        case Cast(), Transpose() | Reshape() | Flip():
            return [b, a]
        case (KeyData(), WrapKeyData()) | (WrapKeyData(), KeyData()):
            return [] if a.impl == b.impl else None
    return None


def _pick_first(shape: Shape, a: Step, b: Slice | Index) -> Any:
    """Moves a pick in front of a step, or merges it with an earlier one."""
    if isinstance(a, Cast):
        return [b, a]
    if isinstance(a, Transpose):
        pick = dataclasses.replace(b, axis=a.axes[b.axis])
        if isinstance(b, Slice):
            return [pick, a]
        axes = [axis for axis in a.axes if axis != pick.axis]
        return [
            pick,
            Transpose(tuple(axis - (axis > pick.axis) for axis in axes)),
        ]
    if isinstance(a, Flip):
        if b.axis not in a.axes:
            pick = b
        elif isinstance(b, Slice):
            size = shape[b.axis]
            pick = Slice(b.axis, size - b.stop, size - b.start)
        else:
            pick = Index(b.axis, shape[b.axis] - 1 - b.index)
        if isinstance(b, Slice):
            return [pick, a]
        axes = [axis for axis in a.axes if axis != b.axis]
        return [pick, Flip(tuple(axis - (axis > b.axis) for axis in axes))]
    if isinstance(a, Reshape):
        return _pick_before_reshape(shape, a, b)
    if isinstance(a, Slice):
        if a.axis == b.axis:
            if isinstance(b, Index):
                return [Index(b.axis, a.start + b.index)]
            return [Slice(a.axis, a.start + b.start, a.start + b.stop)]
        if isinstance(b, Index):
            return [b, dataclasses.replace(a, axis=a.axis - (a.axis > b.axis))]
        return [b, a] if b.axis < a.axis else None
    if isinstance(a, Index) and isinstance(b, Slice):
        return None
    return None


def _pick_before_reshape(shape: Shape, a: Reshape, b: Slice | Index) -> Any:
    """Moves a pick in front of a reshape that keeps the axis as it is."""
    n, before = a.shape[b.axis], math.prod(a.shape[: b.axis])
    for axis, size in enumerate(shape):
        if size == n > 1 and math.prod(shape[:axis]) == before:
            pick = dataclasses.replace(b, axis=axis)
            return [pick, Reshape(b.output(a.shape))]
    return None
