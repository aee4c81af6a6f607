"""An arrangement: one way of cutting the arrays of both models."""

import collections
import dataclasses
import functools
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from common.alignment.fill import Dims
from common.alignment.pieces import Piece, Split

NUMBERS = re.compile(r"\d+")

Weak = tuple[Collection[str], Collection[str]]
NONE_WEAK: Weak = ((), ())


def without_numbers(name: str) -> str:
    """Replaces the numbers in a name, to group the arrays of equal layers."""
    return NUMBERS.sub("#", name)


@dataclasses.dataclass(frozen=True)
class Half:
    """How the arrays of one model are cut.

    Attributes:
        pieces: the pieces that need a counterpart.
        splits: how pieces were cut that are no longer among them.
        zero: pieces without a counterpart that are zero.
        kept: pieces without a counterpart that keep their values.
    """

    pieces: tuple[Piece, ...]
    splits: Mapping[Piece, Split] = dataclasses.field(default_factory=dict)
    zero: tuple[Piece, ...] = ()
    kept: tuple[Piece, ...] = ()

    @classmethod
    def whole(cls, shapes: Mapping[str, Dims]) -> "Half":
        """Returns the half in which each array is one piece."""
        return cls(tuple(Piece.whole(n, shape) for n, shape in shapes.items()))

    @functools.cached_property
    def classes(self) -> collections.Counter[Dims]:
        """How many pieces there are of each class."""
        return collections.Counter(piece.dims for piece in self.pieces)

    @functools.cached_property
    def key(self) -> Any:
        """Equal for halves that are filled with equal values."""
        return frozenset(self.pieces), frozenset(self.zero)

    @property
    def lost(self) -> int:
        """The number of elements that are zero or keep their values."""
        return sum(piece.size for piece in (*self.zero, *self.kept))

    def split(
        self, splits: Mapping[Piece, Split], zero: Iterable[Piece] = ()
    ) -> "Half":
        """Cuts some pieces.

        Args:
            splits: by the piece that is cut.
            zero: the resulting pieces that are zero.
        """
        zero = tuple(zero)
        pieces: list[Piece] = []
        for piece in self.pieces:
            found = splits.get(piece)
            new = (piece,) if found is None else found.children
            pieces += (child for child in new if child not in zero)
        return Half(
            tuple(pieces),
            {**self.splits, **splits},
            self.zero + zero,
            self.kept,
        )

    def keep(self, pieces: Iterable[Piece]) -> "Half":
        """Lets some pieces keep their values."""
        chosen = set(pieces)
        rest = tuple(p for p in self.pieces if p not in chosen)
        kept = tuple(p for p in self.pieces if p in chosen)
        return dataclasses.replace(self, pieces=rest, kept=self.kept + kept)

    def fill(
        self,
        originals: Mapping[str, np.ndarray],
        point: int = 0,
        values: Mapping[Piece, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Returns the arrays of the model at a symmetric point.

        Args:
            originals: the model's own arrays.
            point: the number of the symmetric point.
            values: the values of some of the pieces, instead of symmetric
                ones.
        """
        values = values or {}
        found: dict[str, np.ndarray] = {}
        for piece in (*self.pieces, *self.zero):
            is_zero = piece in self.zero
            if is_zero:
                new = np.zeros(piece.shape)
            elif piece in values:
                new = values[piece]
            else:
                new = piece.values(point)
            if not piece.layout.steps:
                found[piece.array] = new
                continue
            if piece.array not in found:
                found[piece.array] = np.array(
                    originals[piece.array], np.float64, order="C"
                )
            piece.write(found[piece.array], new)
        return {
            name: found.get(name, np.asarray(x, np.float64))
            for name, x in originals.items()
        }


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """How the arrays of both models are cut.

    Attributes:
        left: how the left model's arrays are cut.
        right: how the right model's arrays are cut.
        notes: what was done, in words.
        doubt: how many likelier ways of cutting there were.
    """

    left: Half
    right: Half
    notes: tuple[str, ...] = ()
    doubt: int = 0

    @property
    def halves(self) -> tuple[Half, Half]:
        """Both halves."""
        return self.left, self.right

    @functools.cached_property
    def surplus(self) -> tuple[collections.Counter, collections.Counter]:
        """How many pieces of each class only one side has."""
        left, right = self.left.classes, self.right.classes
        return left - right, right - left

    @property
    def is_balanced(self) -> bool:
        """Whether each piece can have a counterpart."""
        return not any(self.surplus)

    def is_possible(self, weak: Weak = NONE_WEAK) -> bool:
        """Whether the other side has each class of pieces, however many.

        Otherwise no mapping is complete, not even one with tied arrays.

        Args:
            weak: the arrays of each side that need no counterpart, because
                they have no effect.
        """
        left, right = (
            {p.dims for p in half.pieces if p.array not in names}
            for half, names in zip(self.halves, weak, strict=True)
        )
        return left <= self.right.classes.keys() and (
            right <= self.left.classes.keys()
        )

    def sizes_of_one_side(self) -> tuple[list[int], list[int]]:
        """Returns the sizes of axes that only one side has."""
        left, right = (
            {size for dims in half.classes for size in dims}
            for half in self.halves
        )
        return sorted(left - right), sorted(right - left)

    @property
    def is_empty(self) -> bool:
        """Whether neither model has an array."""
        return not any(h.pieces or h.kept or h.zero for h in self.halves)

    @property
    def key(self) -> Any:
        """Equal for arrangements that are filled with equal values."""
        return self.left.key, self.right.key

    def replace(self, side: int, half: Half, note: str = "") -> "Arrangement":
        """Replaces one half."""
        halves = [self.left, self.right]
        halves[side] = half
        notes = (*self.notes, note) if note else self.notes
        return Arrangement(halves[0], halves[1], notes, self.doubt)

    def missing(self) -> int:
        """Returns the number of elements without a counterpart."""
        surplus = sum(
            count * int(np.prod(dims, dtype=np.int64))
            for side in self.surplus
            for dims, count in side.items()
        )
        return surplus + sum(half.lost for half in self.halves)

    @property
    def lost(self) -> float:
        """The share of the elements of a side that need no counterpart."""
        shares = []
        for half in self.halves:
            kept = sum(piece.size for piece in half.pieces)
            shares.append(half.lost / max(half.lost + kept, 1))
        return max(shares)

    def names_without_counterpart(self) -> tuple[list[str], list[str]]:
        """Returns the arrays of the classes of which one side has more."""
        left, right = (
            sorted({p.array for p in half.pieces if p.dims in surplus})
            for half, surplus in zip(self.halves, self.surplus, strict=True)
        )
        return left, right
