"""Follows constants that differ up to the literal that makes them differ."""

from collections.abc import Sequence

from common.divergence.interpret import Node
from common.divergence.reasons import describe_literals, number_text
from common.divergence.result import SIDES, Origin
from common.divergence.walk import BackwardWalk

# The number of operations between a literal and the use of its constant.
MAX_STEPS = 16


def follow_constants(
    walks: Sequence[BackwardWalk], origin: Origin
) -> Origin | None:
    """Returns the literal behind an origin that both programs compute alike.

    Both values come from the same operation, but one of its operands is a
    constant that differs, such as the scale of a loss in its gradient.

    Returns:
        The operations that make the constants, or `None` if the operands do
        not differ by a constant.
    """
    if origin.left is None or origin.right is None:
        return None
    both = origin.left, origin.right
    if both[0].primitive != both[1].primitive:
        return None
    chains = [
        _constants(walk, node) for walk, node in zip(walks, both, strict=True)
    ]
    if not all(chains):
        return None
    kinds = [[_kind(node) for node in chain] for chain in chains]
    rest = [
        [node for node in chain if _kind(node) not in kinds[1 - side]]
        for side, chain in enumerate(chains)
    ]
    literal = [[node for node in side if node.literals] for side in rest]
    if not any(literal):
        return None
    firsts = [side[0] if side else None for side in literal]
    if firsts[0] is not None and firsts[1] is not None:
        reason = describe_literals(firsts[0], firsts[1])
        return Origin(firsts[0], firsts[1], reason) if reason else None
    side = 0 if firsts[0] is not None else 1
    node = firsts[side]
    assert node is not None
    numbers = ", ".join(map(number_text, node.literals))
    reason = f"literal {numbers} only on the {SIDES[side]}"
    return Origin(firsts[0], firsts[1], reason)


def _constants(walk: BackwardWalk, node: Node) -> list[Node]:
    """Returns what the constant operands of a value are computed from.

    Only constants whose elements are all equal count, in execution order.
    """
    nodes = walk.record.nodes
    found: dict[int, Node] = {}
    last = set(node.operands)
    for _ in range(MAX_STEPS):
        last = {
            number
            for number in last
            if walk.is_constant(number)
            and nodes[number].fingerprint.is_constant
            and nodes[number].fingerprint.kind == "float"
            and number not in found
        }
        found |= {number: nodes[number] for number in last}
        last = {i for number in last for i in nodes[number].operands}
    return [found[number] for number in sorted(found)]


def _kind(node: Node) -> tuple:
    values = tuple(x.item() for x in node.literals if x.size == 1)
    return node.primitive, values
