"""Composition and inversion of the layouts of several arrays."""

import functools
from collections.abc import Mapping
from typing import Any

import jax

from common.layouts.joins import Concatenate, Stack
from common.layouts.layout import Layout, Source
from common.layouts.simplify import simplify
from common.layouts.steps import Index, Pick, Slice


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
    found: dict[Source, list[tuple[tuple[Pick, ...], Layout]]] = {}
    for name, layout in layouts.items():
        layout = simplify(layout)
        _pull(layout, Layout.of(name, layout.shape), found)
    return {
        source.name: simplify(_assemble(source, pieces))
        for source, pieces in found.items()
    }


def _pull(layout: Layout, made: Layout, found: dict[Source, Any]) -> None:
    """Undoes a layout down to its sources, and notes the pieces of each."""
    picks = []
    shapes = [layout.joined_shape]
    for step in layout.steps:
        shapes.append(step.output(shapes[-1]))
    steps = list(zip(layout.steps, shapes, strict=False))
    while steps and isinstance(steps[0][0], Pick):
        picks.append(steps.pop(0)[0])
    for step, shape in reversed(steps):
        made = made.then(step.inverse(shape))
    if layout.join is None and isinstance(layout.inputs[0], Source):
        found.setdefault(layout.inputs[0], []).append((tuple(picks), made))
        return
    if picks:
        raise ValueError(
            f"layout {layout}: got a piece of joined arrays, expected whole "
            "arrays. Take the piece before joining."
        )
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


def _assemble(source: Source, pieces: list[Any]) -> Layout:
    """Joins the pieces of a source."""
    for picks, made in pieces:
        if not picks:
            return made
    axes = {(type(p), p.axis) for picks, _ in pieces for p in picks}
    if len(axes) == 1 and all(len(picks) == 1 for picks, _ in pieces):
        ((kind, axis),) = axes
        if kind is Index:
            by_index = {picks[0].index: made for picks, made in pieces}
            if set(by_index) == set(range(source.shape[axis])):
                parts = tuple(by_index[i] for i in sorted(by_index))
                return Layout(parts, Stack(axis, len(parts)))
        else:
            by_start = {picks[0].start: (picks[0], m) for picks, m in pieces}
            ordered = [by_start[start] for start in sorted(by_start)]
            ends = [0, *(pick.stop for pick, _ in ordered)]
            starts = [*(pick.start for pick, _ in ordered), source.shape[axis]]
            if starts == ends:
                sizes = tuple(pick.stop - pick.start for pick, _ in ordered)
                parts = tuple(made for _, made in ordered)
                return Layout(parts, Concatenate(axis, sizes))
    names = sorted({s.name for _, made in pieces for s in made.sources})
    raise ValueError(
        f"layouts of {source}: got only pieces of it in {names}, expected "
        "pieces that cover it once. Add layouts for the other pieces."
    )


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
