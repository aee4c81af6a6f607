"""Which values of one record are found in another, whatever their layout."""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Iterator

import numpy as np

from common.agreement import match_tolerance
from common.divergence.interpret import Node, Record
from common.divergence.sketch import distance, magnitudes, numbers, sketch

# An alignment is looked for among this many orders of the axes.
ORDERS = 720
# Slices are looked for in values of at most this many elements.
SLICED = 2**16
# And along axes that are at most this long.
LOOPED = 256


class Matching:
    """The matches between two records, found when they are asked for.

    Two values match where they hold the same numbers, and, as long as both
    were kept, some order of the axes makes them equal element by element.
    """

    def __init__(self, left: Record, right: Record):
        self.records = (left, right)
        self._index = tuple(map(_index, self.records))
        self._alike: dict[tuple[int, int], tuple[int, ...]] = {}
        self._found: dict[tuple[int, int], tuple[int, ...]] = {}
        self._related: dict[tuple[int, int], tuple[int, ...]] = {}

    def partners(self, side: int, number: int) -> tuple[int, ...]:
        """Returns the values of the other record that match one of this.

        Args:
            side: 0 for the left record, 1 for the right.
            number: of the value.
        """
        key = (side, number)
        if key not in self._found:
            node = self.records[side].nodes[number]
            others = self.records[1 - side].nodes
            self._found[key] = tuple(
                it
                for it in self.alike(side, number)
                if aligned(node, others[it])
            )
        return self._found[key]

    def related(self, side: int, number: int) -> tuple[int, ...]:
        """Returns the partners, or else what a value is a slice of.

        One side may loop over an axis that the other has in its arrays: then
        each value of the loop is a slice of one value, or the slices of a
        value are each one of the loop's.
        """
        key = (side, number)
        if key not in self._related:
            self._related[key] = self.partners(side, number) or (
                *self._wholes(side, number),
                *self._pieces(side, number),
            )
        return self._related[key]

    def _wholes(self, side: int, number: int) -> Iterator[int]:
        """Yields the other side's values that one is a slice of."""
        node = self.records[side].nodes[number]
        if not _sliceable(node, 0):
            return
        (_, a) = numbers(node.value)
        for other, axis, means in self._slices[1 - side].get(a.size, ()):
            mean = node.sketch.moments[1]
            slack = 4 * bound(node, other) * mean
            for i in np.flatnonzero(np.abs(means - mean) <= slack):
                b = np.asarray(numbers(other.value)[1].take(i, axis))
                if arrangement(a, b, bound(node, other)) is not None:
                    yield other.number

    def _pieces(self, side: int, number: int) -> tuple[int, ...]:
        """Returns the other side's values that are one's slices."""
        node = self.records[side].nodes[number]
        if not _sliceable(node, 1):
            return ()
        (_, x) = numbers(node.value)
        for axis, n in enumerate(x.shape):
            found = []
            for i in range(n if 1 < n <= LOOPED else 0):
                piece = _slice(node, axis, i)
                match = next(self._matches(1 - side, piece), None)
                if match is None:
                    break
                found.append(match)
            if found and len(found) == n:
                return tuple(found)
        return ()

    def _matches(self, side: int, node: Node) -> Iterator[int]:
        others = self.records[side].nodes
        if _tells(node):
            for it in self._search(side, node):
                if aligned(node, others[it]):
                    yield it

    @functools.cached_property
    def _slices(self) -> tuple[dict, ...]:
        """By the size of the slices: values, axes, means of squares."""
        tables = []
        for record in self.records:
            table = collections.defaultdict(list)
            for node in record.nodes:
                if not _sliceable(node, 1):
                    continue
                (_, x) = numbers(node.value)
                for axis, n in enumerate(x.shape):
                    if 1 < n <= LOOPED:
                        rest = tuple(i for i in range(x.ndim) if i != axis)
                        means = np.mean(np.square(x, dtype="float64"), rest)
                        table[x.size // n].append((node, axis, means))
            tables.append(table)
        return tuple(tables)

    def alike(self, side: int, number: int) -> tuple[int, ...]:
        """Returns those that hold the same numbers, in whatever order."""
        key = (side, number)
        if key not in self._alike:
            node = self.records[side].nodes[number]
            self._alike[key] = tuple(self._search(1 - side, node))
        return self._alike[key]

    def nearest(self, side: int, number: int) -> tuple[int, float] | None:
        """Returns the likest value of the other side, and how far off it is.

        Only those of the same size count, and whose norm is within a tenth.
        """
        node = self.records[side].nodes[number]
        others = self.records[1 - side].nodes
        scales, order = self._index[1 - side].get(_bucket(node), ((), ()))
        scale = _norm(node)
        low, high = np.searchsorted(scales, (0.9 * scale, 1.1 * scale))
        found = [
            (distance(node.sketch, others[it].sketch), it)
            for it in order[low:high]
        ]
        if not found:
            return None
        off, best = min(found)
        return best, off

    def _search(self, side: int, node: Node) -> Iterator[int]:
        nodes = self.records[side].nodes
        scales, order = self._index[side].get(_bucket(node), ((), ()))
        scale = _norm(node)
        slack = (1e-3 + 4 * match_tolerance(node.eps)) * scale
        low = np.searchsorted(scales, scale - slack, "left")
        high = np.searchsorted(scales, scale + slack, "right")
        for number in order[low:high]:
            other = nodes[number]
            if distance(node.sketch, other.sketch) <= bound(node, other):
                yield number


def bound(left: Node, right: Node) -> float:
    """Returns how far two values may be apart.

    The wider of their precisions counts: a cast that only one side makes is a
    difference, and one that both make is not.
    """
    return match_tolerance(min(left.eps, right.eps))


def aligned(left: Node, right: Node) -> bool:
    """Whether some order of the axes makes two values equal.

    True where it cannot be told, because one of them was not kept.
    """
    if left.value is None or right.value is None or left.sketch.constant:
        return True
    (_, a), (_, b) = numbers(left.value), numbers(right.value)
    return arrangement(a, b, bound(left, right)) is not None


def arrangement(
    a: np.ndarray, b: np.ndarray, tolerance: float
) -> tuple[int, ...] | None:
    """Finds the order of a's axes that makes it equal to b, if there is one.

    Axes of size one do not count, and axes may have been merged: after the
    move of axes both are compared flat.
    """
    a, b = np.squeeze(a), np.squeeze(b)
    for one, other, inverse in ((a, b, False), (b, a, True)):
        flat = other.reshape(-1)
        orders = itertools.permutations(range(one.ndim))
        for order in itertools.islice(orders, ORDERS):
            if same(np.transpose(one, order).reshape(-1), flat, tolerance):
                if inverse:
                    order = tuple(order.index(i) for i in range(len(order)))
                return order
    return None


def same(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    """Whether two arrays of one shape are equal, element by element."""
    if a.dtype.kind in "biu" or b.dtype.kind in "biu":
        return bool(np.array_equal(a, b))
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return False
    a, b = a[finite].astype(np.float64), b[finite].astype(np.float64)
    return bool(np.all(np.abs(a - b) <= tolerance * magnitudes(b)))


def _sliceable(node: Node, ndim: int) -> bool:
    return (
        node.value is not None
        and len(node.shape) >= ndim
        and node.sketch.kind == "float"
        and node.sketch.size <= SLICED
        and _tells(node)
        and not node.sketch.nan + node.sketch.inf
    )


def _tells(node: Node) -> bool:
    """Whether a value is unlikely to be met by chance."""
    if node.sketch.size > 1 or not len(node.sketch.ranks):
        return not node.sketch.constant
    return not float(64 * node.sketch.ranks[0]).is_integer()


def _slice(node: Node, axis: int, i: int) -> Node:
    """Returns a slice of a value, as if it had been computed."""
    x = np.asarray(numbers(node.value)[1].take(i, axis))
    return dataclasses.replace(node, value=x, shape=x.shape, sketch=sketch(x))


def _bucket(node: Node) -> tuple[str, int]:
    return node.sketch.kind, node.sketch.size


def _norm(node: Node) -> float:
    return float(node.sketch.moments[1] ** 0.5)


def _index(record: Record) -> dict:
    """Sorts the values of each kind and size by their norm."""
    buckets = collections.defaultdict(list)
    for node in record.nodes:
        buckets[_bucket(node)].append(node)
    index = {}
    for key, nodes in buckets.items():
        nodes.sort(key=_norm)
        index[key] = (
            np.array([_norm(it) for it in nodes]),
            [it.number for it in nodes],
        )
    return index
