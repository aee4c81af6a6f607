"""Says in one sentence what is known about an origin."""

import itertools

import numpy as np

from common.divergence.fingerprint import comparable_values
from common.divergence.matching import Matching, equal_within
from common.divergence.orders import describe_order
from common.divergence.record import Node
from common.divergence.result import Origin

# Primitives by which a mask is applied.
MASKS = {"add", "add_any", "max", "min", "mul", "select_n", "sub"}
# The number of operations through which an exchange of axes is followed.
MAX_CLIMBED = 32

SAME_NUMBERS = "the same numbers"

Pair = tuple[Node, Node]


def make_origin(matching: Matching, left: Node, right: Node) -> Origin:
    """Returns the pair, or the operands whose order is what differs."""
    allowed = matching.allowed_error(left, right)
    order = describe_order(left, right, allowed)
    if order:
        return Origin(left, right, order)
    nodes = [record.nodes for record in matching.records]
    for a, b in itertools.product(left.operands, right.operands):
        if b in matching.candidates(0, a) and b not in matching.matches(0, a):
            reason = describe_order(nodes[0][a], nodes[1][b], allowed)
            reason = reason or f"{SAME_NUMBERS} in a different order"
            return Origin(nodes[0][a], nodes[1][b], reason)
    exchanged = _find_exchange(matching, left, right)
    if exchanged is not None:
        order = describe_order(*exchanged, allowed)
        if {"input", "constant"} & {node.primitive for node in exchanged}:
            return Origin(left, right, f"an operand has {order}")
        return Origin(*exchanged, order)
    reason = describe_literals(left, right) or describe_candidates(
        matching, left, right
    )
    return Origin(left, right, reason)


def describe_candidates(
    matching: Matching, left: Node | None, right: Node | None
) -> str:
    """Describes the order in which the other program has a value."""
    nodes = [record.nodes for record in matching.records]
    for side, node in enumerate((left, right)):
        if node is None:
            continue
        for number in matching.candidates(side, node.number):
            other = nodes[1 - side][number]
            both = (node, other) if side == 0 else (other, node)
            order = describe_order(*both, matching.allowed_error(*both))
            if order:
                return order
    return ""


def describe_literals(left: Node, right: Node) -> str:
    """Returns the literals of one operation that differ, or `""`."""
    if left.primitive != right.primitive:
        return ""
    pairs = list(zip(left.literals, right.literals, strict=False))
    if len(left.literals) != len(right.literals) or not pairs:
        return ""
    differing = [
        f"literal {number_text(a)} against {number_text(b)}"
        for a, b in pairs
        if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    ]
    return ", ".join(differing)


def number_text(x: np.ndarray) -> str:
    """Returns a number with up to six digits."""
    return f"{x:.6g}" if x.dtype.kind == "f" else str(x)


def climb(matching: Matching, left: Node, right: Node) -> Pair:
    """Follows values in another order up to where the order was made."""
    for _ in range(MAX_CLIMBED):
        above = _exchanged_operands(matching, left, right)
        if above is None:
            break
        left, right = above
    return left, right


def _find_exchange(matching: Matching, left: Node, right: Node) -> Pair | None:
    """Returns the values whose order explains why two values differ.

    Both are computed alike, but from operands with exchanged axes.
    """
    above = _exchanged_operands(matching, left, right)
    if above is None:
        above = _exchanged_below_masks(matching, left, right)
    return None if above is None else climb(matching, *above)


def _exchanged_operands(
    matching: Matching, left: Node, right: Node
) -> Pair | None:
    """Returns operands in another order if all the rest is equal."""
    if (
        left.primitive != right.primitive
        or len(left.operands) != len(right.operands)
        or describe_literals(left, right)
        or len(left.literals) != len(right.literals)
        or repr(left.params) != repr(right.params)
    ):
        return None
    found = None
    for a, b in _operands(matching, left, right):
        if _are_same(matching, a, b):
            continue
        if not _are_exchanged(matching, a, b):
            return None
        found = found or (a, b)
    return found


def _exchanged_below_masks(
    matching: Matching, left: Node, right: Node
) -> Pair | None:
    """Returns exchanged values that a mask is applied to."""
    if not {left.primitive, right.primitive} <= MASKS:
        return None
    nodes = [record.nodes for record in matching.records]
    sides = [
        [nodes[side][i] for i in node.operands if _varies(nodes[side], i)]
        for side, node in enumerate((left, right))
    ]
    masked = all(
        any(nodes[side][i].fingerprint.size > 1 for i in node.operands)
        and len(node.operands) > 1
        for side, node in enumerate((left, right))
    )
    if not masked or any(len(side) != 1 for side in sides):
        return None
    a, b = sides[0][0], sides[1][0]
    return (a, b) if _are_exchanged(matching, a, b) else None


def _varies(nodes: list[Node], number: int) -> bool:
    """Whether a value depends on an input, within a few operations."""
    last = {number}
    for _ in range(MAX_CLIMBED):
        if any(nodes[i].primitive == "input" for i in last):
            return True
        last = {operand for i in last for operand in nodes[i].operands}
    return bool(last)


def _operands(matching: Matching, left: Node, right: Node) -> list[Pair]:
    nodes = [record.nodes for record in matching.records]
    return [
        (nodes[0][a], nodes[1][b])
        for a, b in zip(left.operands, right.operands, strict=True)
    ]


def _are_same(matching: Matching, left: Node, right: Node) -> bool:
    """Whether two values are equal element by element."""
    if left.value is None or right.value is None:
        return False
    if left.shape != right.shape:
        return False
    (_, a), (_, b) = map(comparable_values, (left.value, right.value))
    return equal_within(a, b, matching.allowed_error(left, right))


def _are_exchanged(matching: Matching, left: Node, right: Node) -> bool:
    return left.shape == right.shape and bool(
        describe_order(left, right, matching.allowed_error(left, right))
    )
