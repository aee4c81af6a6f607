"""Arrangements for arrays whose elements are in another order."""

import collections
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from common.alignment.arrangement import Arrangement, without_numbers
from common.alignment.pieces import Piece, Split, cut, permute
from common.alignment.proof import output_error
from common.alignment.sides import Run
from common.layouts import Flip, Reshape, Transpose

PARTS = 8
"""The largest number of parts, such as gates, that an axis consists of."""

Runner = Callable[[Arrangement], tuple[Run, Run]]


def rearranged(
    arrangement: Arrangement, run: Runner, tolerance: float
) -> Iterator[Arrangement]:
    """Yields arrangements in which elements are in another order.

    Args:
        arrangement: one in which each piece can have a counterpart.
        run: runs both models.
        tolerance: the largest error of equal outputs.
    """
    yield from with_parts(arrangement)
    yield from with_other_order(arrangement, run, tolerance)
    yield from flipped(arrangement)
    yield from with_parts(arrangement, interleaved=True)


def with_parts(
    arrangement: Arrangement, interleaved: bool = False
) -> Iterator[Arrangement]:
    """Cuts an axis on both sides: gates or projections in another order.

    Args:
        arrangement: one in which each piece can have a counterpart.
        interleaved: whether the parts of one side are in groups.
    """
    sizes = {n for half in arrangement.halves for d in half.classes for n in d}
    ways = [
        (size, count)
        for size in sizes
        for count in range(2, PARTS + 1)
        if size % count == 0 and size > count
    ]
    # A part that is as long as another axis, such as the hidden state, is
    # likely; among these, the largest axis with the most parts.
    ways.sort(
        key=lambda way: (way[0] // way[1] not in sizes, -way[0], -way[1])
    )
    for size, count in ways:
        if size // count not in sizes and (interleaved or count > 4):
            continue
        groups = [(1, 1)]
        if interleaved:
            numbers = range(2, size // count + 1)
            fitting = [n for n in numbers if size // count % n == 0]
            groups = [g for n in fitting for g in ((1, n), (n, 1))]
        for group in groups:
            yield from _cut_both(arrangement, size, count, group)


def _cut_both(
    arrangement: Arrangement, size: int, count: int, groups: tuple[int, int]
) -> Iterator[Arrangement]:
    parts = (size // count,) * count
    for chosen in _groups_of_classes(arrangement, size):
        new = arrangement
        for side, group in enumerate(groups):
            half = new.halves[side]
            splits = {
                p: cut(p, p.shape.index(size), parts, group)
                for p in half.pieces
                if p.dims in chosen
            }
            note = f"axis of {size} cut into {parts}"
            if group > 1:
                note += f", in each of {group} groups"
            new = new.replace(side, half.split(splits), note)
        yield new


def _groups_of_classes(
    arrangement: Arrangement, size: int
) -> list[set[tuple[int, ...]]]:
    """Returns all classes with an axis of this size together, then each."""
    left, right = (set(half.classes) for half in arrangement.halves)
    classes = sorted(dims for dims in left & right if size in dims)
    groups = [set(classes)] if classes else []
    if len(classes) > 1:
        groups += [{dims} for dims in classes]
    return groups


def flipped(arrangement: Arrangement) -> Iterator[Arrangement]:
    """Reverses the spatial axes of kernels, as transposed ones may be."""
    named = collections.defaultdict(list)
    for piece in arrangement.left.pieces:
        if len(piece.dims) >= 3:
            named[without_numbers(piece.array)].append(piece)
    groups = list(named.values())
    if len(groups) > 1:
        groups.append([p for group in groups for p in group])
    for pieces in groups:
        for leading in (True, False):
            splits = {}
            for piece in pieces:
                axes = tuple(range(len(piece.shape)))
                spatial = axes[2:] if leading else axes[:-2]
                splits[piece] = permute(piece, [Flip(spatial)])
            half = arrangement.left.split(splits)
            yield arrangement.replace(0, half, "kernels flipped")


# --- the order of elements along one axis -----------------------------------


def with_other_order(
    arrangement: Arrangement, run: Runner, tolerance: float
) -> Iterator[Arrangement]:
    """Yields arrangements with elements along one axis in another order.

    All elements along that axis get the same value on both sides. If the
    outputs agree then, the gradients say in which order they are.
    """
    sizes = sorted(
        {n for dims in arrangement.left.classes for n in dims}, reverse=True
    )
    for size in sizes:
        factors = orders_of(size)
        if not factors:
            continue
        for classes in reversed(_groups_of_classes(arrangement, size)):
            for ends in itertools.product((True, False), repeat=2):
                freed = _free(arrangement, size, classes, ends)
                if freed is None:
                    continue
                runs = run(freed)
                if output_error(*(x.outputs for x in runs)) > tolerance:
                    continue
                yield from _in_order(
                    arrangement, freed, size, runs, factors, tolerance
                )


def _free(
    arrangement: Arrangement,
    size: int,
    classes: set[tuple[int, ...]],
    ends: Sequence[bool],
) -> Arrangement | None:
    """Leaves the order along an axis open.

    Args:
        arrangement: how the arrays are cut.
        size: the size of the axis.
        classes: the classes of the pieces.
        ends: for each side, whether the axis is the first or the last one of
            this size.
    """
    for side, is_first in enumerate(ends):
        half = arrangement.halves[side]
        splits, twice = {}, False
        for piece in half.pieces:
            if piece.dims in classes:
                axes = [i for i, n in enumerate(piece.shape) if n == size]
                twice = twice or len(axes) > 1
                axis = axes[0] if is_first else axes[-1]
                free = Piece(piece.array, piece.layout, axis)
                splits[piece] = Split((free,))
        if not (is_first or twice):
            return None  # the same as the first
        arrangement = arrangement.replace(side, half.split(splits))
    return arrangement


def _in_order(
    arrangement: Arrangement,
    freed: Arrangement,
    size: int,
    runs: tuple[Run, Run],
    factors: list[tuple[tuple[int, ...], tuple[int, ...]]],
    tolerance: float,
) -> Iterator[Arrangement]:
    """Yields arrangements in the orders that the gradients allow."""
    profiles = [
        {
            piece: _profile(piece, run)
            for piece in half.pieces
            if piece.free is not None
        }
        for half, run in zip(freed.halves, runs, strict=True)
    ]
    indices = {
        key: np.arange(size).reshape(key[0]).transpose(key[1]).reshape(-1)
        for key in factors
    }
    common: collections.Counter = collections.Counter()
    found: dict[Piece, list] = {}
    for piece, target in profiles[1].items():
        for other, source in profiles[0].items():
            if other.dims != piece.dims:
                continue
            if _is_equal(source, target, tolerance):
                found.setdefault(other, []).append(None)
            for key, index in indices.items():
                if _is_equal(source[index], target, tolerance):
                    found.setdefault(other, []).append(key)
                    common[key] += 1
    for key, _ in common.most_common(4):
        splits = {}
        for piece, keys in found.items():
            if key not in keys or piece.free is None:
                continue
            axis = piece.free
            before, after = piece.shape[:axis], piece.shape[axis + 1 :]
            middle = tuple(axis + i for i in key[1])
            tail = range(
                axis + len(key[0]), len(piece.shape) + len(key[0]) - 1
            )
            steps = [
                Reshape((*before, *key[0], *after)),
                Transpose((*range(axis), *middle, *tail)),
                Reshape(piece.shape),
            ]
            plain = Piece(piece.array, piece.layout)
            splits[plain] = permute(plain, steps)
        note = f"axis of {size} reordered as {key[0]} -> {key[1]}"
        yield arrangement.replace(0, arrangement.left.split(splits), note)


def _profile(piece: Piece, run: Run) -> np.ndarray:
    """Returns a number for each element along the open axis.

    The number does not depend on the order of the other axes.
    """
    gradient = np.asarray(piece.of(run.gradients))
    gradient = np.moveaxis(gradient, piece.free or 0, 0)
    flat = gradient.reshape(gradient.shape[0], -1)
    return flat.sum(1) + np.square(flat).sum(1) ** 0.5


def _is_equal(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    scale = max(float(np.max(np.abs(a))), float(np.max(np.abs(b))))
    spread = float(np.max(a) - np.min(a))
    bound = tolerance * scale
    return spread > bound and bool(np.max(np.abs(a - b)) <= bound)


def orders_of(
    size: int,
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Returns the orders of an axis that come from transposing factors.

    Args:
        size: the size of the axis.

    Returns:
        The factors of the size, and the order that they are transposed to.
    """
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    divisors = [n for n in range(2, size) if size % n == 0]
    for a in divisors:
        found.append(((a, size // a), (1, 0)))
        for b in divisors:
            if (size // a) % b or size // a == b:
                continue
            shape = (a, b, size // (a * b))
            if math.prod(shape) == size:
                found += [
                    (shape, order)
                    for order in ((0, 2, 1), (1, 0, 2), (2, 1, 0))
                ]
    return found
