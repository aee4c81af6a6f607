"""Pairs the earliest unmatched values of two programs and ranks them."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from common.divergence.constants import find_literal
from common.divergence.fingerprint import comparable_values
from common.divergence.matching import ROOTS, Matching, find_axis_order
from common.divergence.reasons import (
    SAME_NUMBERS,
    describe_candidates,
    describe_literals,
    make_origin,
)
from common.divergence.record import Node
from common.divergence.result import SIDES, Origin
from common.divergence.walk import DATA_MOVEMENT, BackwardWalk


def pair_origins(
    walks: Sequence[BackwardWalk], left: list[Node], right: list[Node]
) -> list[Origin]:
    """Pairs the origins of both sides by what they were computed from.

    Args:
        walks: the walk through each program.
        left: the origins of the left program.
        right: the origins of the right program.

    Returns:
        The origins, the most likely first: those of both programs before
        those of one.
    """
    scores = {
        (a.number, b.number): _similarity(walks, a, b)
        for a, b in itertools.product(left, right)
        if _may_correspond(walks, a, b)
    }
    nodes = [{node.number: node for node in side} for side in (left, right)]
    unpaired = [set(side) for side in nodes]
    found: list[tuple[Any, Origin]] = []
    for a, b in sorted(scores, key=lambda pair: (-scores[pair], pair)):
        if scores[a, b] > 0 and a in unpaired[0] and b in unpaired[1]:
            unpaired[0].remove(a)
            unpaired[1].remove(b)
            both = nodes[0][a], nodes[1][b]
            origin = make_origin(walks[0].matching, *both)
            is_order = origin.reason.startswith(SAME_NUMBERS)
            rests = all(map(_rests_on_constants, walks, both))
            evidence = (
                scores[a, b] < 1 or not describe_literals(*both),
                scores[a, b] < 1,
            )
            doubts = rests and not is_order, *_doubts(walks, *both)
            rank = *doubts, *evidence, a
            found.append((rank, origin))
    # The side with fewer unpaired values is more likely to have the fault.
    sides = sorted((0, 1), key=lambda side: len(unpaired[side]))
    for place, side in enumerate(sides):
        for i, number in enumerate(sorted(unpaired[side])):
            node = nodes[side][number]
            both = (node, None) if side == 0 else (None, node)
            rests = _rests_on_constants(walks[side], node)
            rank = rests, *_doubts(walks, *both), 2, 2 + i, place
            order = describe_candidates(walks[0].matching, *both)
            reason = order or f"only on the {SIDES[side]}"
            found.append((rank, Origin(*both, reason)))
    origins = [origin for _, origin in sorted(found, key=lambda pair: pair[0])]
    return find_literal(walks, origins) + origins


def _doubts(
    walks: Sequence[BackwardWalk], left: Node | None, right: Node | None
) -> tuple[bool, ...]:
    """Returns the reasons why an origin may be only a consequence.

    Two correct programs often compute constants, masks, indices and shapes
    in different ways, and use a negative or a reciprocal instead of a value.
    A fault in the forward pass also shows in the backward pass.
    """
    pairs = [
        (walk, node)
        for walk, node in zip(walks, (left, right), strict=True)
        if node is not None
    ]
    constant = all(walk.is_constant(node.number) for walk, node in pairs)
    moves = all(
        node.primitive in DATA_MOVEMENT and not node.rounding
        for _, node in pairs
    )
    exact = all(node.fingerprint.kind == "exact" for _, node in pairs)
    backward = all(walk.is_backward(node.number) for walk, node in pairs)
    if left is not None and right is not None:
        constant = constant and (
            left.fingerprint.kind != right.fingerprint.kind
            or math.prod(left.shape) != math.prod(right.shape)
        )
        exact = exact and left.primitive != right.primitive
        backward = backward or _are_inverse(walks[0].matching, left, right)
    return constant, moves or exact, backward


def _are_inverse(matching: Matching, left: Node, right: Node) -> bool:
    """Whether two values are each other's negatives or reciprocals."""
    if left.value is None or right.value is None:
        return False
    if left.fingerprint.size != right.fingerprint.size:
        return False
    (kind, a), (_, b) = map(comparable_values, (left.value, right.value))
    if kind != "float":
        return False
    inverses = [-a, 1 / a] if np.all(a) else [-a]
    tolerance = matching.allowed_error(left, right)
    return any(
        find_axis_order(np.asarray(inverse), b, tolerance) is not None
        for inverse in inverses
    )


def _similarity(
    walks: Sequence[BackwardWalk], left: Node, right: Node
) -> float:
    """Scores how likely two origins are the same place of both programs."""
    score = 0.0
    matching = walks[0].matching
    nodes = matching.records[0].nodes
    others = walks[1].neighbors(right.number)
    for number in walks[0].neighbors(left.number):
        weight = 0.1 if nodes[number].fingerprint.is_constant else 1.0
        if set(matching.matches_or_slices(0, number)) & others:
            score += weight
        elif set(matching.candidates(0, number)) & others:
            score += weight / 2
    alike = 0.5 * (left.primitive == right.primitive)
    alike += 0.25 * (left.fingerprint.size == right.fingerprint.size)
    if score:
        return score + alike
    # Without common neighbors, count common ancestors.
    ancestors = walks[1].ancestors(right.number)
    common = sum(
        bool(set(matching.matches_or_slices(0, number)) & ancestors)
        for number in walks[0].ancestors(left.number)
    )
    if common or (alike >= 0.5 and left.literals and right.literals):
        return min(0.9, 0.1 * common + 0.2 * alike)
    return 0.0


def _may_correspond(
    walks: Sequence[BackwardWalk], left: Node, right: Node
) -> bool:
    """Whether one of two values is not merely a constant of another size."""
    constant = [
        walk.is_constant(node.number)
        for walk, node in zip(walks, (left, right), strict=True)
    ]
    return constant[0] == constant[1] or (
        left.fingerprint.size == right.fingerprint.size
    )


def _rests_on_constants(walk: BackwardWalk, node: Node) -> bool:
    """Whether a constant that the other program lacks may be the cause."""
    return any(
        walk.is_constant(number)
        and not walk.is_verified(number)
        and not walk.is_repacked_input(number)
        for number in node.operands
    )


def prune(
    origins: Sequence[Origin], walks: Sequence[BackwardWalk]
) -> list[Origin]:
    """Leaves out origins that are no divergence, if there are others.

    These are empty arrays, layouts of values that the other program has, and
    reciprocals.
    """
    matching = walks[0].matching
    rest = [
        origin
        for origin in origins
        if origin.reason.partition(";")[0] == "the first NaN"
        or not _is_layout(walks, origin)
        and not _is_reciprocal(matching, origin)
    ]
    return rest or list(origins)


def differing_inputs(
    origins: Sequence[Origin], walks: Sequence[BackwardWalk]
) -> list[Origin]:
    """Returns the inputs that differ, if no origin names them on both sides.

    They have the same name and the same shape in both programs, but neither
    has the numbers of the other.
    """
    sides = [
        {
            node.label: node
            for node in walk.record.nodes
            if node.primitive == "input"
            and node.fingerprint.kind == "float"
            and node.number in walk.ancestors_of_failures
            and not walk.is_matched(node.number)
        }
        for walk in walks
    ]
    return [
        Origin(left, sides[1][label], f"{label} differs")
        for label, left in sides[0].items()
        if label in sides[1]
        and left.shape == sides[1][label].shape
        and not walks[0].matching.candidates(0, left.number)
        and not any(
            f"only the left has {label}" in origin.reason
            and f"only the right has {label}" in origin.reason
            for origin in origins
        )
    ]


def _is_layout(walks: Sequence[BackwardWalk], origin: Origin) -> bool:
    """Whether an origin on one side only moves values that are known."""
    both = [
        (walk, node)
        for walk, node in zip(walks, (origin.left, origin.right), strict=True)
        if node is not None
    ]
    if any(0 in node.shape for _, node in both):
        return True
    return len(both) == 1 and all(
        (node.primitive in DATA_MOVEMENT or node.primitive == "neg")
        and not node.rounding
        and all(map(walk.is_matched, node.operands))
        for walk, node in both
    )


def _is_reciprocal(matching: Matching, origin: Origin) -> bool:
    if origin.left is None or origin.right is None:
        return False
    if not {origin.left.primitive, origin.right.primitive} <= ROOTS:
        return False
    return _are_inverse(matching, origin.left, origin.right)
