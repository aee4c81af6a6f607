"""Makes the layouts of the right model's arrays from pairs of pieces."""

import dataclasses
from collections.abc import Mapping, Sequence

from common.alignment.arrangement import Half
from common.alignment.fill import Dims
from common.alignment.matching import Pair
from common.alignment.pieces import Piece
from common.layouts import Layout, Reshape, Transpose, simplify


@dataclasses.dataclass(frozen=True)
class Assembly:
    """The layouts of the right model's arrays.

    Attributes:
        layouts: by the name of a right array, over left arrays.
        partial: the right arrays of which only some pieces have a
            counterpart, and these pieces' other half: those without one.
    """

    layouts: dict[str, Layout]
    partial: dict[str, list[Piece]]


def assemble(
    pairs: Sequence[Pair], half: Half, shapes: Mapping[str, Dims]
) -> Assembly:
    """Puts the pieces of the right arrays together again.

    Args:
        pairs: the pairs. Of a right piece that is in several, the first one
            counts.
        half: how the right arrays were cut.
        shapes: the shapes of the right arrays.
    """
    sources: dict[Piece, Layout] = {}
    for pair in pairs:
        sources.setdefault(pair.right, layout_of(pair))
    layouts: dict[str, Layout] = {}
    partial: dict[str, list[Piece]] = {}
    for name, shape in shapes.items():
        missing: list[Piece] = []
        found = _rebuild(Piece.whole(name, shape), half, sources, missing)
        if found is not None and not missing:
            layouts[name] = simplify(found)
        elif found is not None:
            partial[name] = missing
    return Assembly(layouts, partial)


def layout_of(pair: Pair) -> Layout:
    """Returns the layout of a right piece over a left array."""
    left, right = pair.left.shape, pair.right.shape
    ones = [axis for axis, size in enumerate(left) if size == 1]
    if len(ones) == right.count(1):
        # The axes of size 1 are permuted along, which reads better.
        long = [axis for axis, size in enumerate(left) if size != 1]
        order, free = iter(pair.order), iter(ones)
        axes = (next(free) if n == 1 else long[next(order)] for n in right)
        return pair.left.layout.then(Transpose(tuple(axes)))
    shape = tuple(size for size in left if size != 1)
    return pair.left.layout.then(
        Reshape(shape), Transpose(pair.order), Reshape(right)
    )


def _rebuild(
    piece: Piece,
    half: Half,
    sources: Mapping[Piece, Layout],
    missing: list[Piece],
) -> Layout | None:
    """Returns the layout of a piece, or `None` if nothing of it is known."""
    if piece in sources:
        return sources[piece]
    split = half.splits.get(piece)
    if split is None:
        return None
    lacking: list[Piece] = []
    parts = [_rebuild(c, half, sources, lacking) for c in split.children]
    known = [part for part in parts if part is not None]
    lacking += [
        child
        for child, part in zip(split.children, parts, strict=True)
        if part is None
    ]
    if not known:
        return None
    missing += lacking
    if len(known) < len(parts):
        return known[0]  # only says that something is known
    return split.rebuild(known)
