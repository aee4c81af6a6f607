"""Ways to merge neighboring axes, and other ways with the same sizes."""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterator

from common.alignment.arrangement import Arrangement, Half, without_numbers
from common.alignment.fill import Dims, dims_of
from common.alignment.pieces import Piece, reshape


def merged_shapes(shape: Dims) -> Iterator[Dims]:
    """Yields each shape in which some runs of axes are merged.

    Axes of size 1 are left out.
    """
    shape = tuple(size for size in shape if size != 1)
    n = len(shape)
    for count in range(1, n):
        for breaks in itertools.combinations(range(1, n), count - 1):
            edges = (0, *breaks, n)
            yield tuple(
                math.prod(shape[a:b]) for a, b in itertools.pairwise(edges)
            )


def other_merges(arrangement: Arrangement) -> Iterator[Arrangement]:
    """Yields arrangements in which other axes of some arrays are merged.

    An array of the shape (4, 3, 4) is made one of the shape (4, 12) or one of
    the shape (12, 4). Both are of one class, so that only the outputs tell
    which one is right. The arrays of equal layers are treated alike.
    """
    for side, half in enumerate(arrangement.halves):
        for name, ways in _other_shapes(half).items():
            for number in range(min(map(len, ways.values()))):
                shapes = {p: found[number] for p, found in ways.items()}
                new = dataclasses.replace(
                    arrangement.replace(
                        side,
                        _merged_as(half, shapes),
                        f"{name}: other axes merged",
                    ),
                    doubt=arrangement.doubt + 1,
                )
                yield new


def _other_shapes(half: Half) -> dict[str, dict[Piece, list[Dims]]]:
    """Returns other shapes of merged pieces, by the name of their arrays."""
    present = set(half.pieces)
    found: dict[str, dict[Piece, list[Dims]]] = collections.defaultdict(dict)
    for piece, split in half.splits.items():
        if len(split.children) != 1 or split.children[0] not in present:
            continue
        shapes = list(merged_shapes(piece.shape))
        (child,) = split.children
        others = [
            shape
            for shape in shapes
            if dims_of(shape) == child.dims and shape != child.shape
        ]
        if others and child.shape in shapes:
            found[without_numbers(piece.array)][piece] = others
    return found


def _merged_as(half: Half, shapes: dict[Piece, Dims]) -> Half:
    """Merges pieces, which are merged already, to other shapes."""
    splits = {piece: reshape(piece, shape) for piece, shape in shapes.items()}
    swapped = {
        half.splits[piece].children[0]: split.children[0]
        for piece, split in splits.items()
    }
    return dataclasses.replace(
        half,
        pieces=tuple(swapped.get(piece, piece) for piece in half.pieces),
        splits={**half.splits, **splits},
    )
