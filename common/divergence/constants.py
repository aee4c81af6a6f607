"""Follows constants that differ up to the literal that makes them differ."""

import itertools
from collections.abc import Sequence

import numpy as np

from common.agreement import EPS, LITERAL_ULPS
from common.divergence.reasons import describe_literals, number_text
from common.divergence.record import Node
from common.divergence.result import SIDES, Origin
from common.divergence.walk import BackwardWalk

# The number of operations between a literal and the use of its constant.
MAX_STEPS = 16


def find_literal(
    walks: Sequence[BackwardWalk], origins: Sequence[Origin]
) -> list[Origin]:
    """Returns the literal that makes the constants of the origins differ.

    The scale of a loss, for example, reaches its gradient as a constant that
    several operations use. Only constants whose elements are all equal, and
    whose number the other program does not have, are followed.

    Returns:
        One origin, or none if no literal stands out.
    """
    chains = [
        _constants(
            walk,
            other,
            [getattr(origin, side) for origin in origins] + _seeds(walk),
        )
        for walk, other, side in zip(walks, walks[::-1], SIDES, strict=True)
    ]
    if not all(chains):
        return []
    kinds = [[_kind(node) for node in chain] for chain in chains]
    rest = [
        [
            node
            for node in chain
            if _kind(node)[1] and _kind(node) not in kinds[1 - side]
        ]
        for side, chain in enumerate(chains)
    ]
    if rest[0] and rest[1]:
        both = rest[0][0], rest[1][0]
        reason = describe_literals(*both)
        return [Origin(*both, reason)] if reason else []
    for side, found in enumerate(rest):
        if found:
            numbers = ", ".join(
                number_text(x) for x in found[0].literals if x != 1
            )
            reason = f"literal {numbers} only on the {SIDES[side]}"
            both = (found[0], None) if side == 0 else (None, found[0])
            return [Origin(*both, reason)]
    return []


def _seeds(walk: BackwardWalk) -> list[Node]:
    """Returns the constants that a backward pass starts from."""
    nodes = walk.record.nodes
    return [
        nodes[number]
        for number in sorted(walk.ancestors_of_failures)
        if walk.is_backward(number) and _is_uniform(walk, number)
    ]


def _constants(
    walk: BackwardWalk, other: BackwardWalk, used: Sequence[Node | None]
) -> list[Node]:
    """Returns what the constants of some values are computed from."""
    nodes = walk.record.nodes
    known = _numbers(other)
    last = {
        number
        for node in used
        if node is not None
        for number in (*node.operands, node.number)
        if _is_uniform(walk, number)
        and not _is_near(known, _number(nodes[number]))
    }
    found: dict[int, Node] = {}
    for _ in range(MAX_STEPS):
        found |= {number: nodes[number] for number in last}
        last = {
            operand
            for number in last
            for operand in nodes[number].operands
            if _is_uniform(walk, operand) and operand not in found
        }
    return [found[number] for number in sorted(found)]


def _is_uniform(walk: BackwardWalk, number: int) -> bool:
    """Whether a value is a constant with one number for all elements."""
    fingerprint = walk.record.nodes[number].fingerprint
    return (
        walk.is_constant(number)
        and fingerprint.kind == "float"
        and len(fingerprint.ranks) > 0
        and fingerprint.is_constant
    )


def _number(node: Node) -> float:
    return abs(float(node.fingerprint.ranks[0]))


def _numbers(walk: BackwardWalk) -> np.ndarray:
    """Returns the sorted magnitudes of all constants of a program."""
    nodes = walk.record.nodes
    uniform = (
        _number(node) for node in nodes if _is_uniform(walk, node.number)
    )
    literals = (
        abs(float(x))
        for node in nodes
        for x in node.literals
        if x.dtype.kind == "f" and x.size == 1
    )
    return np.unique(list(itertools.chain(uniform, literals, (0.0, 1.0))))


def _is_near(known: np.ndarray, number: float) -> bool:
    largest = np.maximum(known, number) * LITERAL_ULPS * EPS["float32"]
    return bool(np.any(np.abs(known - number) <= largest))


def _kind(node: Node) -> tuple:
    values = (x.item() for x in node.literals if x.size == 1)
    return node.primitive, tuple(x for x in values if x != 1)
