"""Tells in which order one array has the numbers of another."""

import itertools

import numpy as np

from common.divergence.fingerprint import comparable_values
from common.divergence.matching import MAX_AXIS_ORDERS, equal_within
from common.divergence.record import Node

# Only along axes that are at most this long is another order looked for.
MAX_REORDERED_AXIS = 512
# Orders of more entries than this are not written out.
MAX_WRITTEN = 8


def describe_order(left: Node, right: Node, allowed: float) -> str:
    """Describes the order in which the right has the numbers of the left.

    Returns:
        A phrase such as "the same numbers with axes (0, 1) exchanged", or
        `""` if the values are equal, if one of them was not kept, or if no
        such order makes them equal.
    """
    if left.value is None or right.value is None:
        return ""
    if left.fingerprint.is_constant:
        return ""
    (_, a), (_, b) = map(comparable_values, (left.value, right.value))
    if a.size != b.size or (
        a.shape == b.shape and equal_within(a, b, allowed)
    ):
        return ""
    what = _exchanged_axes(a, b, allowed) or _reordered_axis(a, b, allowed)
    return f"the same numbers with {what}" if what else ""


def _exchanged_axes(a: np.ndarray, b: np.ndarray, allowed: float) -> str:
    long = [axis for axis, n in enumerate(a.shape) if n > 1]
    if a.ndim != b.ndim:
        return ""
    orders = itertools.permutations(long)
    for order in itertools.islice(orders, MAX_AXIS_ORDERS):
        axes = list(range(a.ndim))
        for axis, source in zip(long, order, strict=True):
            axes[axis] = source
        moved = a.transpose(axes)
        if moved.shape == b.shape and equal_within(moved, b, allowed):
            changed = [axis for axis in long if axes[axis] != axis]
            if len(changed) == 2:
                return f"axes ({changed[0]}, {changed[1]}) exchanged"
            return f"its axes in the order {tuple(axes)}"
    return ""


def _reordered_axis(a: np.ndarray, b: np.ndarray, allowed: float) -> str:
    if a.shape != b.shape:
        return ""
    for axis, n in enumerate(a.shape):
        if not 1 < n <= MAX_REORDERED_AXIS:
            continue
        if equal_within(np.flip(a, axis), b, allowed):
            return f"axis {axis} reversed"
        order = _order_of_slices(
            np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0), allowed
        )
        if order is None:
            continue
        blocks = _in_blocks(order)
        if len(blocks) > MAX_WRITTEN:
            return f"axis {axis} in another order"
        size = n // len(blocks)
        unit = f" of blocks of {size}" if size > 1 else ""
        return f"axis {axis} in the order {tuple(blocks)}{unit}"
    reversed_axes = [
        axes
        for count in range(2, a.ndim + 1)
        for axes in itertools.combinations(range(a.ndim), count)
        if equal_within(np.flip(a, axes), b, allowed)
    ]
    return f"axes {reversed_axes[0]} reversed" if reversed_axes else ""


def _order_of_slices(
    a: np.ndarray, b: np.ndarray, allowed: float
) -> list[int] | None:
    """Returns the index into `a` of every slice of `b`."""
    sums = a.reshape(len(a), -1).astype(np.float64).sum(1)
    wanted = b.reshape(len(b), -1).astype(np.float64).sum(1)
    near = np.argsort(np.abs(sums[None] - wanted[:, None]), 1)[:, :4]
    order: list[int] = []
    for piece, candidates in zip(b, near, strict=True):
        for i in candidates:
            if int(i) not in order and equal_within(a[i], piece, allowed):
                order.append(int(i))
                break
        else:
            return None
    return order


def _in_blocks(order: list[int]) -> list[int]:
    """Returns the order of the longest blocks that stay together."""
    n = len(order)
    for size in range(n // 2, 0, -1):
        if n % size:
            continue
        starts = order[::size]
        kept = all(
            order[i : i + size] == list(range(first, first + size))
            and first % size == 0
            for i, first in zip(range(0, n, size), starts, strict=True)
        )
        if kept:
            return [first // size for first in starts]
    return order
