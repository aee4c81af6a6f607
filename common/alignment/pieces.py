"""How the arrays of two models are cut into pieces that may correspond."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.alignment.fill import Dims, dims_of, symmetric
from common.layouts import (
    Concatenate,
    Index,
    Layout,
    Reshape,
    Slice,
    Stack,
    Step,
)

LEFT, RIGHT = 0, 1


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of an array, or an array with other axes.

    Attributes:
        array: the dotted name of the array.
        layout: makes the piece from the array.
        free: an axis along which the order of the elements is unknown, so
            that they all get the same value; `None` if there is none.
    """

    array: str
    layout: Layout
    free: int | None = None

    @classmethod
    def whole(cls, array: str, shape: Dims) -> "Piece":
        """Returns the piece that is the whole array."""
        return cls(array, Layout.of(array, shape))

    @property
    def shape(self) -> Dims:
        """The shape of the piece."""
        return self.layout.shape

    @property
    def dims(self) -> Dims:
        """The sorted sizes of the axes, without those of size 1."""
        return dims_of(self.layout.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.layout.shape)

    def then(self, *steps: Step) -> "Piece":
        """Returns a piece of this piece."""
        return Piece(self.array, self.layout.then(*steps))

    def values(self, point: int) -> np.ndarray:
        """Returns the values of the piece at a symmetric point."""
        if self.free is None:
            return symmetric(self.shape, point)
        shape = list(self.shape)
        size, shape[self.free] = shape[self.free], 1
        values = symmetric(tuple(shape), point)
        if len(self.dims) > 1:
            values = (values - 1) * (3 / size)
        return np.broadcast_to(values, self.shape)

    def of(self, arrays: Mapping[str, Any]) -> Any:
        """Takes the piece of an array."""
        return self.layout.apply(arrays)

    def write(self, array: np.ndarray, values: np.ndarray) -> None:
        """Writes the values of the piece into a contiguous array."""
        view = self.layout.apply({self.array: array})
        if np.shares_memory(view, array):
            view[...] = values
            return
        index = np.arange(array.size, dtype=np.int32).reshape(array.shape)
        array.reshape(-1)[self.of({self.array: index})] = values

    def __hash__(self) -> int:
        return hash((self.array, self.layout.steps, self.free))


@dataclasses.dataclass(frozen=True)
class Split:
    """How a piece was cut, and so how it is put together again.

    Attributes:
        children: the pieces that it was cut into.
        join: joins them; `None` if there is one.
        before: what is done to each child before they are joined; nothing if
            it is empty.
        after: what is done to the joined array.
    """

    children: tuple[Piece, ...]
    join: Concatenate | Stack | None = None
    before: tuple[tuple[Step, ...], ...] = ()
    after: tuple[Step, ...] = ()

    def rebuild(self, parts: Sequence[Layout]) -> Layout:
        """Returns the layout of the piece, from those of its children."""
        if self.before:
            pairs = zip(parts, self.before, strict=True)
            parts = [part.then(*steps) for part, steps in pairs]
        return Layout(tuple(parts), self.join, self.after)


def unstack(piece: Piece, axis: int) -> Split:
    """Takes a stack of pieces apart."""
    size = piece.shape[axis]
    children = tuple(piece.then(Index(axis, i)) for i in range(size))
    return Split(children, join=Stack(axis, size))


def reshape(piece: Piece, shape: Dims) -> Split:
    """Merges or splits neighboring axes."""
    child = piece.then(Reshape(shape))
    return Split((child,), after=(Reshape(piece.shape),))


def permute(piece: Piece, steps: Sequence[Step]) -> Split:
    """Applies steps that keep all elements."""
    back, shape = [], piece.shape
    for step in steps:
        back.append(step.inverse(shape))
        shape = step.output(shape)
    return Split((piece.then(*steps),), after=tuple(reversed(back)))


def cut(
    piece: Piece, axis: int, sizes: Sequence[int], groups: int = 1
) -> Split:
    """Cuts an axis into parts.

    Args:
        piece: the piece to cut.
        axis: counted from 0.
        sizes: the size of each part; multiples of `groups`.
        groups: if more than 1, the axis consists of this many groups that
            each have a share of every part, as in interleaved projections.
    """
    shape = piece.shape
    ahead, behind = shape[:axis], shape[axis + 1 :]
    shares = tuple(size // groups for size in sizes)
    starts = (0, *itertools.accumulate(shares))
    if groups == 1:
        children = tuple(
            piece.then(Slice(axis, start, start + share))
            for start, share in zip(starts, shares, strict=False)
        )
        return Split(children, join=Concatenate(axis, shares))
    grouped = piece.then(Reshape((*ahead, groups, sum(shares), *behind)))
    children = tuple(
        grouped.then(
            Slice(axis + 1, start, start + share),
            Reshape((*ahead, groups * share, *behind)),
        )
        for start, share in zip(starts, shares, strict=False)
    )
    before = tuple(
        (Reshape((*ahead, groups, share, *behind)),) for share in shares
    )
    join = Concatenate(axis + 1, shares)
    return Split(children, join, before, (Reshape(shape),))
