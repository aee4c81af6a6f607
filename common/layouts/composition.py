"""Composition and inversion of the layouts of several arrays."""

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

import jax

from common.layouts.joins import Concatenate, Stack
from common.layouts.layout import Layout, Source
from common.layouts.simplification import simplify
from common.layouts.steps import Index, Pick, Shape, Slice, Step


def inverse(layout: Layout) -> Layout:
    """Returns the layout that leads back, if there is one source.

    The inverse's source goes by the same name.

    Raises:
        ValueError: if there are several sources, or if the layout keeps only
            a piece of the source.
    """
    if len(layout.sources) != 1:
        raise ValueError(
            f"layout {layout}: got {len(layout.sources)} sources, expected "
            "one. Invert all layouts of these sources with `invert`."
        )
    (source,) = layout.sources
    return invert({source.name: layout})[source.name]


def compose(
    first: Mapping[str, Layout], second: Mapping[str, Layout]
) -> dict[str, Layout]:
    """Returns layouts that lead from the sources of `first` to `second`.

    Args:
        first: by name; these are the sources of `second`.
        second: by name.
    """
    return {
        name: simplify(layout.substitute(first))
        for name, layout in second.items()
    }


def invert(layouts: Mapping[str, Layout]) -> dict[str, Layout]:
    """Returns layouts that make the sources from the arrays made from them.

    Args:
        layouts: by name. Together they use every element of each source.

    Raises:
        ValueError: naming a source of which some elements are in no array,
            so that they could not be recovered.
    """
    found: dict[Source, list[Piece]] = {}
    for name, layout in layouts.items():
        layout = simplify(layout)
        _pull(layout, Layout.of(name, layout.shape), found)
    return {
        source.name: simplify(_assemble(source, source.shape, pieces))
        for source, pieces in found.items()
    }


Piece = tuple[tuple[Step, ...], Layout]
"""The steps that make a piece of an array, and what was made of it."""


def _pull(
    layout: Layout, made: Layout, found: dict[Source, list[Piece]]
) -> None:
    """Undoes a layout down to its sources, and notes the pieces of each."""
    if layout.join is None and isinstance(layout.inputs[0], Source):
        found.setdefault(layout.inputs[0], []).append((layout.steps, made))
        return
    shapes = [layout.joined_shape]
    for step in layout.steps:
        shapes.append(step.output(shapes[-1]))
    steps = list(zip(layout.steps, shapes, strict=False))
    for step, shape in reversed(steps):
        if isinstance(step, Pick):
            raise ValueError(
                f"layout {layout}: got a piece of joined arrays, expected "
                "whole arrays. Take the piece before joining."
            )
        made = made.then(step.inverse(shape))
    start = 0
    for i, part in enumerate(layout.inputs):
        piece = made
        if isinstance(layout.join, Concatenate):
            size = layout.join.sizes[i]
            piece = made.then(Slice(layout.join.axis, start, start + size))
            start += size
        elif isinstance(layout.join, Stack):
            piece = made.then(Index(layout.join.axis, i))
        part = Layout((part,)) if isinstance(part, Source) else part
        _pull(part, piece, found)


def _assemble(source: Source, shape: Shape, pieces: list[Piece]) -> Layout:
    """Joins the pieces of an array, of which one step after another is undone.

    Args:
        source: the array that the pieces are of, for the error.
        shape: the shape that the first steps of the pieces apply to.
        pieces: the pieces.
    """
    for steps, made in pieces:
        if not steps:
            return made
    groups: dict[Step, list[Piece]] = {}
    for steps, made in pieces:
        groups.setdefault(steps[0], []).append((steps[1:], made))
    # One array may be made of the whole source, beside others.
    for step, group in groups.items():
        if not isinstance(step, Pick):
            with contextlib.suppress(ValueError):
                part = _assemble(source, step.output(shape), group)
                return part.then(step.inverse(shape))
    picks = {}
    for step, group in groups.items():
        if isinstance(step, Pick):
            picks[step] = _assemble(source, step.output(shape), group)
    for axis in sorted({pick.axis for pick in picks}):
        along = {pick: x for pick, x in picks.items() if pick.axis == axis}
        joined = _join_picks(along, axis, shape[axis])
        if joined is not None:
            return joined
    names = sorted({s.name for _, made in pieces for s in made.sources})
    raise ValueError(
        f"layouts of {source}: got only pieces of it in {names}, expected "
        "pieces that cover it once. Add layouts for the other pieces."
    )


def _join_picks(
    parts: dict[Pick, Layout], axis: int, size: int
) -> Layout | None:
    """Joins pieces along an axis; `None` if they do not cover it once."""
    entries = [pick for pick in parts if isinstance(pick, Index)]
    ranges = [pick for pick in parts if isinstance(pick, Slice)]
    if entries and not ranges:
        entries.sort(key=lambda pick: pick.index)
        if [pick.index for pick in entries] == list(range(size)):
            ordered = tuple(parts[pick] for pick in entries)
            return Layout(ordered, Stack(axis, size))
    elif ranges and not entries:
        ranges.sort(key=lambda pick: pick.start)
        stops = [0, *(pick.stop for pick in ranges)]
        if [*(pick.start for pick in ranges), size] == stops:
            ordered = tuple(parts[pick] for pick in ranges)
            sizes = tuple(pick.stop - pick.start for pick in ranges)
            return Layout(ordered, Concatenate(axis, sizes))
    return None


def apply(
    layouts: Mapping[str, Layout], trees: Mapping[str, Any]
) -> dict[str, Any]:
    """Applies layouts to arrays, or to trees of arrays of one structure.

    An array that does not have the shape of its source is passed on as it is:
    where an optimizer keeps one number for each parameter, say.

    Args:
        layouts: by the name of what they make.
        trees: by the name of a source.
    """

    def make(layout, *leaves):
        sources = layout.sources
        if all(
            getattr(x, "shape", None) == source.shape
            for x, source in zip(leaves, sources, strict=True)
        ):
            names = (source.name for source in sources)
            return layout.apply(dict(zip(names, leaves, strict=True)))
        return leaves[0]

    return {
        name: jax.tree.map(
            functools.partial(make, layout),
            *(trees[source.name] for source in layout.sources),
        )
        for name, layout in layouts.items()
    }
