"""Finds gradients that only one of two programs stops."""

from collections.abc import Sequence
from typing import Any

from common.divergence.result import SIDES, Origin
from common.divergence.walk import DATA_MOVEMENT, BackwardWalk

# The gradient of a softmax does not depend on the maximum that is subtracted.
MAXIMA = {"max", "reduce_max", "argmax", "pmax"}
LAYOUTS = DATA_MOVEMENT | {"select_n", "stop_gradient"}
# The number of operations between a maximum and where its gradient stops.
MAX_STEPS = 6


def find_stops(walks: Sequence[BackwardWalk]) -> list[Origin]:
    """Returns the values whose gradient only one of both programs stops.

    Args:
        walks: the walk through each program.
    """
    found: dict[Any, Origin] = {}
    for side, (walk, other) in enumerate(zip(walks, walks[::-1], strict=True)):
        theirs = _stops(other)
        stopped = other.ancestors_of(theirs)
        for number in _stops(walk):
            node = walk.record.nodes[number]
            same = walk.matching.matches_or_slices(side, number)
            if not same or node.fingerprint.kind != "float":
                continue
            # Their gradient may be stopped before or after the same value.
            before = other.ancestors_of(same[:1])
            if same[0] in stopped or not before.isdisjoint(theirs):
                continue
            partner = other.record.nodes[same[0]]
            both = (node, partner) if side == 0 else (partner, node)
            reason = f"stop_gradient only on the {SIDES[side]}"
            # A line that runs several times is named once.
            found.setdefault(node.frames[:1], Origin(*both, reason))
    return list(found.values())


def are_backward(walks: Sequence[BackwardWalk], origin: Origin) -> bool:
    """Whether an origin is in a backward pass."""
    return any(
        node is not None and walk.is_backward(node.number)
        for walk, node in zip(walks, (origin.left, origin.right), strict=True)
    )


def _stops(walk: BackwardWalk) -> list[int]:
    """Returns the values that stop a gradient which is not zero anyway."""
    return [
        node.number
        for node in walk.record.nodes
        if node.primitive == "stop_gradient"
        and walk.users(node.number)
        and not walk.is_constant(node.number)
        and not _is_maximum(walk, node.number)
    ]


def _is_maximum(walk: BackwardWalk, number: int) -> bool:
    """Whether a value is a maximum, in any layout, perhaps made finite."""
    nodes = walk.record.nodes
    last = {number}
    for _ in range(MAX_STEPS):
        if any(nodes[i].primitive in MAXIMA for i in last):
            return True
        last = {
            operand
            for i in last
            if nodes[i].primitive in LAYOUTS
            for operand in nodes[i].operands
        }
    return False
