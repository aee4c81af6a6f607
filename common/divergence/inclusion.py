"""Finds values whose elements are among those of the other program.

One program may compute a value for all cases, and the other one only for
those that it needs: a mixture of experts runs every expert on every token, or
gathers the experts of each token. The values of the second program are then
among those of the first, in arrays of another size.
"""

import collections
import functools
from collections.abc import Callable

import numpy as np

from common.divergence.fingerprint import comparable_values
from common.divergence.record import Node, Record

# Values of other sizes are not searched.
MIN_ELEMENTS, MAX_ELEMENTS = 6, 2**14
# Longer programs are not searched.
MAX_VALUES = 4096
# Operations that select elements. A wrong index selects elements that the
# other program has as well, so what they select proves nothing.
SELECTIONS = {
    "broadcast_in_dim",
    "concatenate",
    "constant",
    "conv_general_dilated",
    "convert_element_type",
    "copy",
    "dynamic_slice",
    "gather",
    "input",
    "pad",
    "reduce_max",
    "reduce_min",
    "reshape",
    "rev",
    "scan slice",
    "scan stack",
    "select_n",
    "slice",
    "sort",
    "split",
    "squeeze",
    "stop_gradient",
    "transpose",
}

INDEXED = {"dynamic_slice", "gather", "sort", "top_k"}


class Inclusion:
    """The inclusions between the values of two programs.

    Args:
        records: what both programs computed.
        is_known: whether a program has all the numbers of a value.
        allowed_error: returns the largest error of two equal values.
    """

    def __init__(
        self,
        records: tuple[Record, Record],
        is_known: Callable[[int, int], bool],
        allowed_error: Callable[[Node, Node], float],
    ):
        self.records = records
        self.is_known = is_known
        self.allowed_error = allowed_error

    def related(self, side: int, number: int) -> tuple[int, ...]:
        """Returns the values that include a value, or that it includes."""
        return self._related[side].get(number, ())

    @functools.cached_property
    def _related(self) -> tuple[dict[int, tuple[int, ...]], ...]:
        found: tuple[dict[int, set[int]], ...] = (
            collections.defaultdict(set),
            collections.defaultdict(set),
        )
        if max(len(one.nodes) for one in self.records) <= MAX_VALUES:
            for side in (0, 1):
                self._search(side, found)
        return tuple(
            {number: tuple(sorted(others)) for number, others in one.items()}
            for one in found
        )

    def _search(self, side: int, found: tuple[dict[int, set[int]], ...]):
        groups = _groups(self.records[1 - side])
        selected = _selected(self.records[side])
        for node in self.records[side].nodes:
            if not _is_searched(node) or self.is_known(side, node.number):
                continue
            (_, x) = comparable_values(node.value)
            x = np.unique(x)
            x = x[(x != 0) & (np.abs(x) != 1)]
            if len(x) < MIN_ELEMENTS:
                continue
            for group, elements in groups:
                if elements.size == node.fingerprint.size:
                    continue
                # A wrong stride reads a part of a value as well.
                if len(group) < 2 and node.number not in selected:
                    continue
                allowed = self.allowed_error(node, group[0])
                allowed *= node.fingerprint.magnitude
                if not _are_among(x[:: len(x) // 2 or 1], elements, allowed):
                    continue
                if not _are_among(x, elements, allowed):
                    continue
                for other in group:
                    (_, y) = comparable_values(other.value)
                    if _any_among(y.reshape(-1), x, allowed):
                        found[side][node.number].add(other.number)
                        found[1 - side][other.number].add(node.number)


def _selected(record: Record) -> set[int]:
    """Returns the values that depend on elements chosen by their index."""
    found: set[int] = set()
    for node in record.nodes:
        if node.primitive in INDEXED or not found.isdisjoint(node.operands):
            found.add(node.number)
    return found


def _is_searched(node: Node) -> bool:
    return (
        node.value is not None
        and node.primitive not in SELECTIONS
        and node.fingerprint.kind == "float"
        and MIN_ELEMENTS <= node.fingerprint.size <= MAX_ELEMENTS
        and not node.fingerprint.is_constant
        and not node.fingerprint.nan + node.fingerprint.inf
    )


def _groups(record: Record) -> list[tuple[list[Node], np.ndarray]]:
    """Returns the values of each line, and all their elements, sorted."""
    table = collections.defaultdict(list)
    for node in record.nodes:
        if _is_searched(node):
            table[node.primitive, node.shape, node.frames[:2]].append(node)
    return [
        (
            group,
            np.sort(
                np.concatenate(
                    [
                        comparable_values(node.value)[1].reshape(-1)
                        for node in group
                    ]
                )
            ),
        )
        for group in table.values()
    ]


def _nearest(x: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Returns the distance of each element to the nearest of others."""
    i = np.clip(np.searchsorted(ordered, x), 1, max(1, len(ordered) - 1))
    above = np.abs(ordered[np.minimum(i, len(ordered) - 1)] - x)
    return np.minimum(above, np.abs(ordered[i - 1] - x))


def _are_among(x: np.ndarray, ordered: np.ndarray, allowed: float) -> bool:
    return bool(np.all(_nearest(x, ordered) <= allowed))


def _any_among(x: np.ndarray, ordered: np.ndarray, allowed: float) -> bool:
    return bool(np.any(_nearest(x, ordered) <= allowed))
