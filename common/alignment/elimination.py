"""Pairs pieces without an effect by elimination."""

import collections
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float64

from common.alignment.fill import Dims
from common.alignment.matching import Pair
from common.alignment.pieces import Piece
from common.alignment.sketches import order_between, sorting_orders
from common.layouts import Index, Slice


def pair_dead(
    pairs: Iterable[Pair], left: Sequence[Piece], right: Sequence[Piece]
) -> list[Pair]:
    """Pairs pieces that nothing depends on with those of sibling arrays.

    A pair is made where it is the only one of its class, or where the arrays
    beside the left piece correspond to those beside the right one and to no
    others.

    Args:
        pairs: the pairs that are known.
        left: the left pieces without an effect.
        right: the right pieces without an effect.
    """
    kin = _Kin(pairs)
    by_class: dict[Dims, tuple[list[Piece], list[Piece]]] = (
        collections.defaultdict(lambda: ([], []))
    )
    for side, pieces in enumerate((left, right)):
        for piece in pieces:
            by_class[piece.dims][side].append(piece)
    found: list[Pair] = []
    for lefts, rights in by_class.values():
        if len(lefts) == len(rights) == 1:
            found.append(_pair(lefts[0], rights[0]))
            continue
        scores = np.array(
            [[kin.score(a, b) for b in rights] for a in lefts], float
        ).reshape(len(lefts), len(rights))
        found += [
            _pair(lefts[a], rights[b]) for a, b in _mutually_best(scores)
        ]
    return found


def _pair(left: Piece, right: Piece) -> Pair:
    """Pairs two pieces in the order of their axes, if the sizes allow."""
    shapes = [
        tuple(size for size in piece.shape if size != 1)
        for piece in (left, right)
    ]
    if shapes[0] == shapes[1]:
        return Pair(left, right, tuple(range(len(shapes[0]))))
    orders = [sorting_orders(shape)[0] for shape in shapes]
    return Pair(left, right, order_between(*orders))


def _mutually_best(
    scores: Float64[np.ndarray, "left right"],
) -> list[tuple[int, int]]:
    """Returns the pairs with the best score of both their pieces, alone."""
    found = []
    for a, row in enumerate(scores):
        if not row.size:
            continue
        b = int(np.argmax(row))
        rivals = np.concatenate(
            [np.delete(row, b), np.delete(scores[:, b], a), [0.0]]
        )
        if row[b] > rivals.max():
            found.append((a, b))
    return found


class _Kin:
    """How closely arrays are related to those of known pairs."""

    def __init__(self, pairs: Iterable[Pair]):
        self.pairs = [
            (pair.left, pair.right, _words(pair.left), _words(pair.right))
            for pair in pairs
        ]

    def score(self, left: Piece, right: Piece) -> float:
        """Returns how many pairs of arrays beside both there are.

        Pairs in the same module count more than those in the module that has
        it, and so on.
        """
        a, b = _words(left), _words(right)
        total = 0.0
        for other, match, c, d in self.pairs:
            depth = min(_depth(a, c), _depth(b, d))
            score = 4.0**depth
            if _place(other) == _place(left) and _place(match) == _place(
                right
            ):
                score *= 2
            total += score
        return total


def _words(piece: Piece) -> list[str]:
    return piece.array.split(".")[:-1]


def _depth(a: Sequence[str], b: Sequence[str]) -> float:
    """Returns how deep the last module is that has both arrays."""
    depth = 0.0
    for x, y in zip(a, b, strict=False):
        if x != y:
            return depth - 0.5 * (max(len(a), len(b)) - depth)
        depth += 1
    return depth


def _place(piece: Piece) -> list[object]:
    """Returns which part of its array a piece is, whatever its size."""
    return [
        step.index if isinstance(step, Index) else step.start
        for step in piece.layout.steps
        if isinstance(step, Index | Slice)
    ]
