"""Walks back from what differs to where it first does."""

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from common.divergence.interpret import Node, Record
from common.divergence.matching import Matching, arrangement, bound
from common.divergence.sketch import distance, numbers

LEAVES = {"input", "constant"}
# What hands values on as they are, in another shape or order.
LAYOUT = {
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "copy_p",
    "expand_dims",
    "reshape",
    "rev",
    "scan slice",
    "slice",
    "split",
    "squeeze",
    "transpose",
}
# What takes parts of a value, and so tells nothing of the others.
PICKING = {"dynamic_slice", "gather", "scan slice", "slice", "split"}
# What gives the same for many a wrong value.
LOSSY = {
    "abs",
    "and",
    "argmax",
    "argmin",
    "ceil",
    "clamp",
    "cos",
    "eq",
    "floor",
    "ge",
    "gt",
    "is_finite",
    "le",
    "lt",
    "max",
    "min",
    "ne",
    "or",
    "reduce_and",
    "reduce_max",
    "reduce_min",
    "reduce_or",
    "round",
    "select_n",
    "sign",
    "stop_gradient",
}
# Two origins without a common operand may have one this many steps back.
NEAR = 3


@dataclasses.dataclass(frozen=True)
class Origin:
    """An earliest difference: what it was computed from agrees.

    Attributes:
        left: the value of the left side, if it has one of its own.
        right: that of the right side.
        reason: what is known of it, in words.
    """

    left: Node | None
    right: Node | None
    reason: str = ""

    @property
    def off(self) -> float | None:
        """How far the two values are apart, over their largest magnitude."""
        if self.left is None or self.right is None:
            return None
        return distance(self.left.sketch, self.right.sketch)


class Walk:
    """The walk back through one record, from its outputs that differ."""

    def __init__(self, matching: Matching, side: int, roots: Sequence[int]):
        self.matching = matching
        self.side = side
        self.roots = roots
        self.record: Record = matching.records[side]

    def matched(self, number: int) -> bool:
        """Whether the other side has this value."""
        return bool(self.matching.related(self.side, number))

    def origins(self) -> list[Node]:
        """Returns the earliest values without a match."""
        nodes = self.record.nodes
        seen: set[int] = set()
        found: dict[int, Node] = {}
        stack = [it for it in self.roots if not self.matched(it)]
        while stack:
            number = stack.pop()
            if number in seen:
                continue
            seen.add(number)
            apart = [it for it in nodes[number].operands if not self.known(it)]
            # An input without a match may only be packed otherwise: it is
            # blamed where nothing else is.
            computed = [it for it in apart if not self.packed(it)]
            if computed:
                stack.extend(computed)
            else:
                found[number] = nodes[number]
        return [found[number] for number in sorted(found)]

    def packed(self, number: int) -> bool:
        """Whether a value is an input in another shape, or a plain number."""
        node = self.record.nodes[number]
        if node.primitive in LEAVES:
            return True
        # What is computed from plain numbers may be folded on the other side.
        if not node.operands:
            return True
        return (node.primitive in LAYOUT or node.sketch.constant) and all(
            map(self.packed, node.operands)
        )

    def strange(self, node: Node | None) -> list[str]:
        """Returns the paths of a value's inputs that the other side lacks."""
        found: list[str] = []
        for it in node.operands if node is not None else ():
            if not self.known(it) and self.packed(it):
                operand = self.record.nodes[it]
                found += [operand.label] * bool(operand.label)
                found += self.strange(operand)
        return list(dict.fromkeys(found))

    def sources(self, number: int) -> set[int]:
        """Returns what a value was computed from, before any packing."""
        found: set[int] = set()
        for it in self.record.nodes[number].operands:
            loose = not self.matched(it) and (
                self.packed(it) or self.known(it)
            )
            found |= self.sources(it) if loose else {it}
        return found

    def beside(self, number: int) -> set[int]:
        """Returns what a value was computed from, or is used together with.

        A constant, such as a mask, is only known by what it is used on.
        """
        found, last = self.sources(number), {number}
        for _ in range(NEAR if self.constant(number) else 0):
            last = {j for i in last for j in self._users[i]}
            found |= {j for i in last for j in self.sources(i)}
        return {it for it in found if not self.constant(it)} or found

    @functools.cached_property
    def _users(self) -> dict[int, list[int]]:
        users = collections.defaultdict(list)
        for node in self.record.nodes:
            for it in node.operands:
                users[it].append(node.number)
        return users

    def above(self, number: int) -> set[int]:
        """Returns what a value was computed from, a few steps back."""
        found, last = set(), {number}
        for _ in range(NEAR):
            last = {j for i in last for j in self.record.nodes[i].operands}
            found |= last
        nodes = self.record.nodes
        return {it for it in found if not nodes[it].sketch.constant}

    def known(self, number: int) -> bool:
        """Whether a value is right: matched, or confirmed by a later one.

        The other side has something that was computed from it, so it was
        only computed in another way. A value that is picked from, as a fused
        product is, is right where all that is picked from it is.
        """
        return self._known[number]

    def constant(self, number: int) -> bool:
        """Whether a value was computed from no input."""
        return self._constant[number]

    def backward(self, number: int) -> bool:
        """Whether a value is of the backward pass, or only for it."""
        return self._backward[number]

    @functools.cached_property
    def _backward(self) -> list[bool]:
        backward = [False] * len(self.record.nodes)
        for node in reversed(self.record.nodes):
            users = self._users[node.number]
            backward[node.number] = "transpose(" in node.scope or (
                bool(users) and all(backward[it] for it in users)
            )
        return backward

    @functools.cached_property
    def _constant(self) -> list[bool]:
        constant: list[bool] = []
        for node in self.record.nodes:
            constant.append(
                node.primitive != "input"
                and all(constant[it] for it in node.operands)
            )
        return constant

    @functools.cached_property
    def _behind(self) -> set[int]:
        """What the differing outputs were computed from.

        Only this confirms a value: another output may hide a difference, as
        the first step of Adam does, whatever the size of the gradient.
        """
        behind: set[int] = set()
        stack = list(self.roots)
        while stack:
            number = stack.pop()
            if number not in behind:
                behind.add(number)
                stack.extend(self.record.nodes[number].operands)
        return behind

    @functools.cached_property
    def _known(self) -> list[bool]:
        nodes = self.record.nodes
        known = [False] * len(nodes)
        behind = self._behind
        for node in reversed(nodes):
            users = [nodes[it] for it in self._users[node.number]]
            users = [it for it in users if it.number in behind]
            known[node.number] = self.matched(node.number) or (
                node.primitive not in LEAVES
                and not node.sketch.constant
                and _confirmed(users, known)
            )
        return known


def _confirmed(users: list[Node], known: list[bool]) -> bool:
    picks = [known[it.number] for it in users if it.primitive in PICKING]
    rest = [
        known[it.number]
        for it in users
        if it.primitive not in (*PICKING, *LOSSY) and not it.sketch.constant
    ]
    return any(rest) or (bool(picks) and all(picks))


def pair(
    walks: Sequence[Walk], left: list[Node], right: list[Node]
) -> list[Origin]:
    """Pairs the origins of both sides by what they were computed from.

    The likeliest come first: those of both sides, then those of one.
    """
    kin = {(a.number, b.number): 0.0 for a in left for b in right}
    for a, b in itertools.product(left, right):
        kin[a.number, b.number] = _kinship(walks, a, b)
    nodes = [{it.number: it for it in side} for side in (left, right)]
    free = [set(side) for side in nodes]
    found: list[tuple[Any, Origin]] = []
    for a, b in sorted(kin, key=lambda it: (-kin[it], it)):
        if kin[a, b] > 0 and a in free[0] and b in free[1]:
            free[0].remove(a)
            free[1].remove(b)
            both = nodes[0][a], nodes[1][b]
            near = kin[a, b] >= 1
            order = *_doubts(walks, *both), 0 if near else 1, a
            found.append((order, _blame(walks[0].matching, *both)))
    # The side with fewer of them is the likelier to be the odd one.
    sides = sorted((0, 1), key=lambda it: len(free[it]))
    for place, side in enumerate(sides):
        for i, it in enumerate(sorted(free[side])):
            both = (nodes[0][it], None) if side == 0 else (None, nodes[1][it])
            order = *_doubts(walks, *both), 2 + i, place
            found.append((order, Origin(*both)))
    return [it for _, it in sorted(found, key=lambda it: it[0])]


def _doubts(
    walks: Sequence[Walk], left: Node | None, right: Node | None
) -> tuple[bool, ...]:
    """Returns what makes it less likely that an origin is the first one.

    A fault in the forward pass shows in the backward pass too; indices and
    masks, constants, and shapes are often made in another way; and so are
    reciprocals and signs.
    """
    pairs = [
        (walk, node)
        for walk, node in zip(walks, (left, right), strict=True)
        if node is not None
    ]
    constant = all(walk.constant(node.number) for walk, node in pairs)
    layout = all(node.primitive in LAYOUT for _, node in pairs)
    exact = all(node.sketch.kind == "exact" for _, node in pairs)
    backward = all(walk.backward(node.number) for walk, node in pairs)
    if left is not None and right is not None:
        constant = constant and (
            left.sketch.kind != right.sketch.kind
            or math.prod(left.shape) != math.prod(right.shape)
        )
        exact = exact and left.primitive != right.primitive
        backward = backward or _inverse(left, right)
    return constant, layout or exact, backward


def _inverse(left: Node, right: Node) -> bool:
    """Whether two values are each other's negatives or reciprocals."""
    if left.value is None or right.value is None:
        return False
    (kind, a), (_, b) = numbers(left.value), numbers(right.value)
    if kind != "float" or left.sketch.size != right.sketch.size:
        return False
    others = [-a, 1 / a] if np.all(a) else [-a]
    return any(
        arrangement(np.asarray(it), b, bound(left, right)) is not None
        for it in others
    )


def _blame(matching: Matching, left: Node, right: Node) -> Origin:
    """Returns a pair, or what put its operands into another order."""
    nodes = [record.nodes for record in matching.records]
    for a, b in itertools.product(left.operands, right.operands):
        if b in matching.alike(0, a) and b not in matching.partners(0, a):
            return Origin(
                nodes[0][a], nodes[1][b], "the same numbers in another order"
            )
    return Origin(left, right)


def _kinship(walks: Sequence[Walk], left: Node, right: Node) -> float:
    """Scores how likely two origins are the same place of both programs."""
    score = 0.0
    matching = walks[0].matching
    nodes = matching.records[0].nodes
    others = walks[1].beside(right.number)
    for operand in walks[0].beside(left.number):
        weight = 0.1 if nodes[operand].sketch.constant else 1.0
        if set(matching.related(0, operand)) & others:
            score += weight
        elif set(matching.alike(0, operand)) & others:
            score += weight / 2
    alike = 0.5 * (left.primitive == right.primitive)
    alike += 0.25 * (left.sketch.size == right.sketch.size)
    if score:
        return score + alike
    # Nothing in common: perhaps a few steps back.
    above = walks[1].above(right.number)
    common = sum(
        bool(set(matching.related(0, it)) & above)
        for it in walks[0].above(left.number)
    )
    if common or (alike >= 0.5 and left.literals and right.literals):
        return min(0.9, 0.1 * common + 0.2 * alike)
    return 0.0
