"""Finds which pieces of two models have the same gradients."""

import collections
import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from common.alignment.arrangement import Arrangement, Half
from common.alignment.fill import Dims
from common.alignment.pieces import Piece
from common.alignment.sides import Run
from common.alignment.sketches import (
    Order,
    order_between,
    sketch,
    sorting_orders,
)


class Option(NamedTuple):
    """A left piece that a right one may be.

    Attributes:
        left: the number of the left piece.
        order: the number of the order of its axes, among the orders in which
            they have sorted sizes.
        error: the relative error of the gradients.
    """

    left: int
    order: int
    error: float


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two pieces that correspond.

    Attributes:
        left: a piece of the left model.
        right: a piece of the right model.
        order: the axes of the left piece, without those of size 1, in the
            order that they have in the right one.
    """

    left: Piece
    right: Piece
    order: Order

    def to_right(self, x: np.ndarray) -> np.ndarray:
        """Brings values of the left piece into the order of the right."""
        x = x.reshape([size for size in x.shape if size != 1])
        return x.transpose(self.order).reshape(self.right.shape)

    def to_left(self, x: np.ndarray) -> np.ndarray:
        """Brings values of the right piece into the order of the left."""
        x = x.reshape([size for size in x.shape if size != 1])
        return x.transpose(np.argsort(self.order)).reshape(self.left.shape)


@dataclasses.dataclass(frozen=True)
class Sketches:
    """Sketches of the gradients of one side.

    Attributes:
        outputs: the leaves of the outputs.
        rows: for each piece, its sketch.
        largest: for each piece, the largest gradient.
        top: the largest gradient of any array.
    """

    outputs: list[np.ndarray]
    rows: list[np.ndarray]
    largest: np.ndarray
    top: float

    @classmethod
    def of(cls, half: Half, run: Run) -> "Sketches":
        """Takes sketches of the gradients, which need not be kept."""
        top = max(
            (
                float(np.max(np.abs(x), initial=0))
                for x in run.gradients.values()
            ),
            default=0.0,
        )
        rows, largest = [], []
        for piece in half.pieces:
            gradient = np.asarray(piece.of(run.gradients))
            rows.append(sketch(gradient))
            largest.append(float(np.max(np.abs(gradient), initial=0)))
        return cls(run.outputs, rows, np.asarray(largest, float), top)


class Evidence:
    """What the gradients of both models say, at one or several points.

    Attributes:
        arrangement: how the arrays are cut.
        sketches: for each side and piece, an array of (orders, values).
        magnitudes: for each side and piece, the largest gradient over the
            largest one of the side, at the point where it is largest.
        top: the largest gradient.
        floor: errors this small, relative to the largest gradient, are due
            to rounding.
    """

    def __init__(
        self,
        arrangement: Arrangement,
        found: tuple[Sketches, Sketches],
        floor: float,
    ):
        self.arrangement, self.floor = arrangement, floor
        # Both sides are divided by the same number, because the gradient of a
        # tied array is a sum of gradients of the other side.
        self.top = top = max(one.top for one in found) or 1.0
        self.sketches = [[row / top for row in one.rows] for one in found]
        self.magnitudes = [one.largest / top for one in found]

    def add(self, other: "Evidence") -> "Evidence":
        """Returns the evidence of both.

        Where the outputs are saturated, all gradients are small differences
        of larger numbers. They count as little as they are small.
        """
        new = Evidence.__new__(Evidence)
        new.arrangement, new.floor = self.arrangement, self.floor
        new.top = max(self.top, other.top)
        weights = self.top / new.top, other.top / new.top
        new.sketches = [
            [
                np.concatenate([x * weights[0], y * weights[1]], axis=1)
                for x, y in zip(a, b, strict=True)
            ]
            for a, b in zip(self.sketches, other.sketches, strict=True)
        ]
        new.magnitudes = [
            np.maximum(a, b)
            for a, b in zip(self.magnitudes, other.magnitudes, strict=True)
        ]
        return new

    def has_effect(self, side: int, number: int, threshold: float) -> bool:
        """Whether a piece has an effect on the outputs."""
        return bool(self.magnitudes[side][number] > threshold)

    def by_class(
        self, side: int, numbers: Iterable[int]
    ) -> dict[Dims, list[int]]:
        """Groups pieces by their class."""
        found = collections.defaultdict(list)
        pieces = self.arrangement.halves[side].pieces
        for number in numbers:
            found[pieces[number].dims].append(number)
        return dict(found)

    def errors(
        self, right: int, lefts: Sequence[int]
    ) -> Float64[np.ndarray, "lefts orders"]:
        """Returns the error of each left piece in each order."""
        target = self.sketches[1][right][0]
        rows = np.stack([self.sketches[0][left] for left in lefts])
        return relative(rows, target, self.floor)

    def pair(
        self, left: int, order: int, right: int, right_order: int = 0
    ) -> Pair:
        """Returns the pair of two pieces.

        Args:
            left: the number of the left piece.
            order: the number of the order of its axes, among those in which
                they have sorted sizes.
            right: the number of the right piece.
            right_order: the number of the order in which it is equal.
        """
        halves = self.arrangement.halves
        pieces = halves[0].pieces[left], halves[1].pieces[right]
        orders = [
            sorting_orders(tuple(n for n in piece.shape if n != 1))[number]
            for piece, number in zip(pieces, (order, right_order), strict=True)
        ]
        return Pair(*pieces, order_between(*orders))

    def options(
        self,
        rights: Collection[int],
        lefts: Collection[int],
        tolerance: float,
        ratio: float | None = None,
    ) -> dict[int, list[Option]]:
        """Returns the left pieces that each right piece may be.

        Args:
            rights: the numbers of right pieces.
            lefts: the numbers of left pieces.
            tolerance: the largest relative error.
            ratio: if given, how many times the smallest error is allowed;
                for models that differ slightly anyway.
        """
        by_class = self.by_class(0, lefts)
        found: dict[int, list[Option]] = {}
        for dims, numbers in self.by_class(1, rights).items():
            candidates = by_class.get(dims, [])
            for right in numbers:
                found[right] = []
                if not candidates:
                    continue
                errors = self.errors(right, candidates)
                bound = tolerance
                if ratio is not None:
                    bound = min(bound, ratio * float(errors.min()))
                found[right] = [
                    Option(candidates[i], int(order), float(errors[i, order]))
                    for i, order in zip(
                        *np.nonzero(errors <= bound), strict=True
                    )
                ]
        return found


def relative(
    rows: Float64[np.ndarray, "..."],
    target: Float64[np.ndarray, " n"],
    floor: float = 0.0,
) -> Any:
    """Returns the largest difference over the largest magnitude.

    Args:
        rows: one or several sketches, along the last axis.
        target: the sketch to compare each with.
        floor: differences this small are due to rounding.
    """
    difference = np.max(np.abs(rows - target), axis=-1, initial=0)
    scale = np.maximum(
        np.max(np.abs(rows), axis=-1, initial=0),
        np.max(np.abs(target), initial=0),
    )
    return np.maximum(difference - floor, 0) / np.where(scale > 0, scale, 1)
