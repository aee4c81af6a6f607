"""Finds which values of one program occur in another, in any layout."""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from common.agreement import match_tolerance
from common.divergence.fingerprint import (
    MAX_MEAN_FACTOR,
    comparable_values,
    error_scales,
    fingerprint_error,
    take_fingerprint,
)
from common.divergence.record import Node, Record

# Operations of which one program may use the reciprocal of the other's.
ROOTS = {"sqrt", "rsqrt"}
# The number of axis orders that are tried to align two arrays.
MAX_AXIS_ORDERS = 720
# Slices are only looked for in values with at most this many elements,
MAX_SLICED_SIZE = 2**16
# and along axes that are at most this long.
MAX_SLICED_AXIS = 256


class Matching:
    """The matches between two records, computed when they are needed.

    Two values match if they hold the same numbers, within the tolerance of
    the dtype that they passed through. Where both values were kept, some
    order of the axes must also make them equal element by element.

    Args:
        left: what the left program computed.
        right: what the right program computed.
        allowed_error: returns the largest error of two values that match.
    """

    def __init__(
        self,
        left: Record,
        right: Record,
        allowed_error: Callable[[Node, Node], float] | None = None,
    ):
        self.records = (left, right)
        self.allowed_error = allowed_error or narrower_tolerance
        self._index = tuple(map(_index_by_norm, self.records))
        self._candidates: dict[tuple[int, int], tuple[int, ...]] = {}
        self._matches: dict[tuple[int, int], tuple[int, ...]] = {}
        self._related: dict[tuple[int, int], tuple[int, ...]] = {}

    def matches(self, side: int, number: int) -> tuple[int, ...]:
        """Returns the values of the other record that match a value.

        Args:
            side: 0 if the value is of the left record, 1 for the right.
            number: the value's number in its record.
        """
        key = (side, number)
        if key not in self._matches:
            node = self.records[side].nodes[number]
            others = self.records[1 - side].nodes
            self._matches[key] = tuple(
                other
                for other in self.candidates(side, number)
                if self._is_equal(node, others[other])
            )
        return self._matches[key]

    def matches_or_slices(self, side: int, number: int) -> tuple[int, ...]:
        """Returns the matches of a value, or else those of its slices.

        One program may loop over an axis that the other keeps in its
        arrays. Then each value in the loop is a slice of one value of the
        other program.
        """
        key = (side, number)
        if key not in self._related:
            self._related[key] = self.matches(side, number) or (
                *self._wholes(side, number),
                *self._pieces(side, number),
            )
        return self._related[key]

    def has_reciprocal(self, side: int, number: int) -> bool:
        """Whether the other record has a root that is one over a value."""
        node = self.records[side].nodes[number]
        if not _can_be_sliced(node, 0):
            return False
        (_, x) = comparable_values(node.value)
        if not np.all(x):
            return False
        inverse = np.asarray(1 / x.astype(np.float64))
        piece = dataclasses.replace(
            node, value=inverse, fingerprint=take_fingerprint(inverse)
        )
        others = self.records[1 - side].nodes
        found = self._matches_of_piece(1 - side, piece)
        return any(others[other].primitive in ROOTS for other in found)

    def candidates(self, side: int, number: int) -> tuple[int, ...]:
        """Returns the values that hold the same numbers in any order."""
        key = (side, number)
        if key not in self._candidates:
            node = self.records[side].nodes[number]
            self._candidates[key] = tuple(self._search(1 - side, node))
        return self._candidates[key]

    def nearest(self, side: int, number: int) -> tuple[int, float] | None:
        """Returns the value of the other record with the smallest error.

        Only values of the same size whose norm is within 10 % count.

        Returns:
            The number of the value and its error, or `None`.
        """
        node = self.records[side].nodes[number]
        others = self.records[1 - side].nodes
        norms, order = self._index[1 - side].get(_bucket(node), ((), ()))
        norm = _norm(node)
        low, high = np.searchsorted(norms, (0.9 * norm, 1.1 * norm))
        found = [
            (fingerprint_error(node.fingerprint, others[i].fingerprint), i)
            for i in order[low:high]
        ]
        if not found:
            return None
        error, best = min(found)
        return best, error

    def _wholes(self, side: int, number: int) -> Iterator[int]:
        """Yields the other side's values that a value is a slice of."""
        node = self.records[side].nodes[number]
        if not _can_be_sliced(node, 0):
            return
        (_, a) = comparable_values(node.value)
        for other, axis, means in self._slices[1 - side].get(a.size, ()):
            mean = node.fingerprint.moments[1]
            allowed = self.allowed_error(node, other)
            slack = 4 * allowed * mean
            for i in np.flatnonzero(np.abs(means - mean) <= slack):
                (_, whole) = comparable_values(other.value)
                b = np.asarray(whole.take(i, axis))
                if find_axis_order(a, b, allowed) is not None:
                    yield other.number

    def _pieces(self, side: int, number: int) -> tuple[int, ...]:
        """Returns the other side's values that are slices of a value."""
        node = self.records[side].nodes[number]
        if not _can_be_sliced(node, 1):
            return ()
        (_, x) = comparable_values(node.value)
        for axis, n in enumerate(x.shape):
            found = []
            for i in range(n if 1 < n <= MAX_SLICED_AXIS else 0):
                piece = _slice(node, axis, i)
                match = next(self._matches_of_piece(1 - side, piece), None)
                if match is None:
                    break
                found.append(match)
            if found and len(found) == n:
                return tuple(found)
        return ()

    def _matches_of_piece(self, side: int, piece: Node) -> Iterator[int]:
        others = self.records[side].nodes
        if is_distinctive(piece):
            for other in self._search(side, piece):
                if self._is_equal(piece, others[other]):
                    yield other

    @functools.cached_property
    def _slices(self) -> tuple[dict, ...]:
        """Values and axes by the size of a slice, with means of squares."""
        tables = []
        for record in self.records:
            table = collections.defaultdict(list)
            for node in record.nodes:
                if not _can_be_sliced(node, 1):
                    continue
                (_, x) = comparable_values(node.value)
                for axis, n in enumerate(x.shape):
                    if 1 < n <= MAX_SLICED_AXIS:
                        rest = tuple(i for i in range(x.ndim) if i != axis)
                        with np.errstate(over="ignore"):  # a mask
                            squares = np.square(x, dtype="float64")
                            means = np.mean(squares, rest)
                        table[x.size // n].append((node, axis, means))
            tables.append(table)
        return tuple(tables)

    def _search(self, side: int, node: Node) -> Iterator[int]:
        """Yields the values of a side with the fingerprint of a node."""
        nodes = self.records[side].nodes
        norms, order = self._index[side].get(_bucket(node), ((), ()))
        norm = _norm(node)
        slack = (1e-3 + 4 * self._largest_error(node)) * norm
        low = np.searchsorted(norms, norm - slack, "left")
        high = np.searchsorted(norms, norm + slack, "right")
        for number in order[low:high]:
            other = nodes[number]
            kept = node.value is not None and other.value is not None
            error = fingerprint_error(
                node.fingerprint,
                other.fingerprint,
                # All elements are compared afterwards.
                1.0 if kept else MAX_MEAN_FACTOR,
            )
            if error <= self.allowed_error(node, other):
                yield number

    def _largest_error(self, node: Node) -> float:
        """The largest error that a match of a value can have."""
        return max(self.allowed_error(node, other) for other in self._coarse)

    @functools.cached_property
    def _coarse(self) -> list[Node]:
        """The first value of every precision in both records."""
        found: dict[float, Node] = {}
        for node in itertools.chain(*(one.nodes for one in self.records)):
            found.setdefault(node.eps, node)
        return list(found.values())

    def _is_equal(self, left: Node, right: Node) -> bool:
        return equal_up_to_axis_order(
            left, right, self.allowed_error(left, right)
        )


def narrower_tolerance(left: Node, right: Node) -> float:
    """Returns the largest error of two values that still match.

    The tolerance is that of the more precise value. So a cast to a narrow
    dtype in only one of the programs is a divergence.
    """
    return match_tolerance(min(left.eps, right.eps))


def equal_up_to_axis_order(left: Node, right: Node, allowed: float) -> bool:
    """Whether some order of the axes makes two values equal.

    Returns `True` if one of the values was not kept, because then nothing
    contradicts the fingerprints.
    """
    if left.value is None or right.value is None:
        return True
    if left.fingerprint.is_constant:
        return True
    (_, a), (_, b) = map(comparable_values, (left.value, right.value))
    return find_axis_order(a, b, allowed) is not None


def find_axis_order(
    a: np.ndarray, b: np.ndarray, tolerance: float
) -> tuple[int, ...] | None:
    """Finds the order of the axes of `a` that makes it equal to `b`.

    Axes of size one are ignored, and neighboring axes may be merged: after
    the transposition both arrays are compared flat.
    """
    a, b = np.squeeze(a), np.squeeze(b)
    for one, other, inverse in ((a, b, False), (b, a, True)):
        flat = other.reshape(-1)
        orders = itertools.permutations(range(one.ndim))
        for order in itertools.islice(orders, MAX_AXIS_ORDERS):
            moved = np.transpose(one, order).reshape(-1)
            if equal_within(moved, flat, tolerance):
                if inverse:
                    order = tuple(order.index(i) for i in range(len(order)))
                return order
    return None


def equal_within(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    """Whether two arrays of one shape are equal within a relative error."""
    if a.dtype.kind in "biu" or b.dtype.kind in "biu":
        return bool(np.array_equal(a, b))
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return False
    a, b = a[finite].astype(np.float64), b[finite].astype(np.float64)
    return bool(np.all(np.abs(a - b) <= tolerance * error_scales(b)))


def is_distinctive(node: Node) -> bool:
    """Whether a value is unlikely to occur in a program by chance."""
    ranks = node.fingerprint.ranks
    if node.fingerprint.size > 1 or not len(ranks):
        return not node.fingerprint.is_constant
    return not float(64 * ranks[0]).is_integer()


def _can_be_sliced(node: Node, ndim: int) -> bool:
    return (
        node.value is not None
        and len(node.shape) >= ndim
        and node.fingerprint.kind == "float"
        and node.fingerprint.size <= MAX_SLICED_SIZE
        and is_distinctive(node)
        and not node.fingerprint.nan + node.fingerprint.inf
    )


def _slice(node: Node, axis: int, i: int) -> Node:
    """Returns a slice of a value, as if the program had computed it."""
    x = np.asarray(comparable_values(node.value)[1].take(i, axis))
    return dataclasses.replace(
        node, value=x, shape=x.shape, fingerprint=take_fingerprint(x)
    )


def _bucket(node: Node) -> tuple[str, int]:
    return node.fingerprint.kind, node.fingerprint.size


def _norm(node: Node) -> float:
    return float(node.fingerprint.moments[1] ** 0.5)


def _index_by_norm(record: Record) -> dict:
    """Sorts the values of each kind and size by their norm."""
    buckets = collections.defaultdict(list)
    for node in record.nodes:
        buckets[_bucket(node)].append(node)
    index = {}
    for key, nodes in buckets.items():
        nodes.sort(key=_norm)
        index[key] = (
            np.array([_norm(node) for node in nodes]),
            [node.number for node in nodes],
        )
    return index
