"""Arrays of a source that hold the same values as others.

A weight that is tied on one side is two arrays on the other. Back to the tied
one, only one of the two is needed, and the other must have the same values.
"""

from collections.abc import Mapping
from typing import Any

import jax.core
import numpy as np

from common.layouts import Layout, invert, simplify


def copies_of(
    made: Mapping[str, Layout], layouts: Mapping[str, Layout]
) -> dict[str, Layout]:
    """Returns the arrays that are not needed to make others.

    Args:
        made: what the arrays of the other side are made of, by name.
        layouts: of arrays over those of the other side, by name.

    Returns:
        For each array of `layouts` of which nothing in `made` is made, the
        layout that makes it from those of which something is.
    """
    used = {s.name for layout in made.values() for s in layout.sources}
    return {
        name: simplify(layout.substitute(made))
        for name, layout in layouts.items()
        if name not in used and all(s.name in made for s in layout.sources)
    }


def invert_beside(
    made: Mapping[str, Layout], layouts: Mapping[str, Layout]
) -> tuple[dict[str, Layout], dict[str, Layout]]:
    """Inverts layouts, some of whose sources are made of other arrays.

    Args:
        made: what arrays of the other side are made of already, by name.
        layouts: of arrays over those of the other side, by name.

    Returns:
        What more arrays of the other side are made of, and the layouts of
        copies.
    """
    used = {s.name for layout in made.values() for s in layout.sources}
    added = {
        name: layout
        for name, layout in invert(layouts).items()
        if name not in made or used & {s.name for s in layout.sources}
    }
    return added, copies_of({**added, **made}, layouts)


def require_copies(
    copies: Mapping[str, Layout], arrays: Mapping[str, Any]
) -> None:
    """Checks that arrays hold the same values as others.

    Arrays without values, such as tracers, are not checked.

    Args:
        copies: the layout that makes each array from others.
        arrays: of the source, by name.

    Raises:
        ValueError: naming the arrays that hold other values.
    """
    for name, layout in copies.items():
        names = [source.name for source in layout.sources]
        given = [arrays.get(n) for n in (name, *names)]
        if any(isinstance(x, jax.core.Tracer) for x in given):
            continue
        if not all(hasattr(x, "__array__") for x in given):
            continue
        want, got = np.asarray(layout.apply(arrays)), np.asarray(given[0])
        if not np.array_equal(want, got, equal_nan=got.dtype.kind == "f"):
            raise ValueError(
                f"source {name!r}: got other values than in {names}, expected "
                "the same, because the target holds both as one array. Add "
                f"{name!r} to `ignore` to lose its values."
            )
