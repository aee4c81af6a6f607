"""Walks back from the outputs that differ to the earliest divergence."""

import collections
import functools
from collections.abc import Iterable, Sequence

import numpy as np

from common.divergence.matching import ROOTS, Matching
from common.divergence.record import Node, Record

LEAVES = {"input", "constant"}
# Data-movement primitives.
DATA_MOVEMENT = {
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
# Primitives that read a part of a value and do not depend on the rest.
PARTIAL_READS = {"dynamic_slice", "gather", "scan slice", "slice", "split"}
# Primitives that can mask an error.
MASKING = {
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
# Those of them that return a value as it is where they do not mask it.
CLIPPING = {"abs", "clamp", "max", "min", "select_n"}
# The number of steps that `ancestors` and `neighbors` go through a program.
MAX_STEPS = 3


class BackwardWalk:
    """The walk back through one program, from its outputs that differ.

    Args:
        matching: the matches between both programs.
        side: 0 to walk through the left program, 1 for the right.
        failures: the numbers of the outputs that differ.
    """

    def __init__(self, matching: Matching, side: int, failures: Sequence[int]):
        self.matching = matching
        self.side = side
        self.failures = failures
        self.record: Record = matching.records[side]
        self._sources: dict[int, frozenset[int]] = {}
        self._repacked: dict[int, bool] = {}

    def is_matched(self, number: int) -> bool:
        """Whether the other program computes this value."""
        return bool(self.matching.matches_or_slices(self.side, number))

    def is_verified(self, number: int) -> bool:
        """Whether a value is matched, or a later value confirms it.

        If the other program computes a value that was computed from this
        one, then both only compute it differently. A value that is read in
        parts, such as a fused product, is verified if all the parts are.
        """
        return self._verified[number]

    def is_constant(self, number: int) -> bool:
        """Whether a value does not depend on any input."""
        return self._constant[number]

    def is_backward(self, number: int) -> bool:
        """Whether a value belongs to the backward pass only."""
        return self._backward[number]

    def is_repacked_input(self, number: int) -> bool:
        """Whether a value is an input in another layout, or a constant."""
        if number not in self._repacked:
            node = self.record.nodes[number]
            moved = node.primitive in DATA_MOVEMENT and not node.rounding
            # The other program may have folded what is computed from
            # literals.
            self._repacked[number] = (
                node.primitive in LEAVES
                or not node.operands
                or (moved or node.fingerprint.is_constant)
                and all(map(self.is_repacked_input, node.operands))
            )
        return self._repacked[number]

    def find_origins(self) -> list[Node]:
        """Returns the earliest values without a match."""
        nodes = self.record.nodes
        seen: set[int] = set()
        found: dict[int, Node] = {}
        stack = [i for i in self.failures if not self.is_matched(i)]
        while stack:
            number = stack.pop()
            if number in seen:
                continue
            seen.add(number)
            # An input without a match may only have another layout, so it
            # is not followed.
            computed = [
                operand
                for operand in nodes[number].operands
                if not self.is_verified(operand)
                and not self.is_repacked_input(operand)
            ]
            stack.extend(computed)
            # Two programs may have their masks and tables in different
            # forms, so what is computed from a constant may be the origin.
            if all(map(self.is_constant, computed)):
                found[number] = nodes[number]
        return [found[number] for number in sorted(found)]

    def unmatched_inputs(self, node: Node | None) -> list[str]:
        """Returns the paths of a value's inputs that have no match."""
        found: list[str] = []
        for number in node.operands if node is not None else ():
            if self.is_verified(number) or not self.is_repacked_input(number):
                continue
            operand = self.record.nodes[number]
            found += [operand.label] * bool(operand.label)
            found += self.unmatched_inputs(operand)
        return list(dict.fromkeys(found))

    def sources(self, number: int) -> frozenset[int]:
        """Returns the operands of a value, skipping unmatched repacking."""
        if number not in self._sources:
            found: set[int] = set()
            for operand in self.record.nodes[number].operands:
                skipped = not self.is_matched(operand) and (
                    self.is_repacked_input(operand)
                    or self.is_verified(operand)
                )
                found |= self.sources(operand) if skipped else {operand}
            self._sources[number] = frozenset(found)
        return self._sources[number]

    def neighbors(self, number: int) -> set[int]:
        """Returns what a value was computed from or is combined with.

        A constant, such as a mask, has no sources that identify it, so the
        values that it is combined with are added.
        """
        found, last = set(self.sources(number)), {number}
        for _ in range(MAX_STEPS if self.is_constant(number) else 0):
            last = {user for i in last for user in self._users[i]}
            found |= {source for i in last for source in self.sources(i)}
        return {i for i in found if not self.is_constant(i)} or found

    def ancestors(self, number: int) -> set[int]:
        """Returns what a value was computed from, a few steps back."""
        nodes = self.record.nodes
        found, last = set(), {number}
        for _ in range(MAX_STEPS):
            last = {operand for i in last for operand in nodes[i].operands}
            found |= last
        return {i for i in found if not nodes[i].fingerprint.is_constant}

    def users(self, number: int) -> list[int]:
        """Returns the values that are computed from a value."""
        return self._users[number]

    @functools.cached_property
    def ancestors_of_failures(self) -> set[int]:
        """Everything that the differing outputs were computed from.

        Only these values can verify one another. An output that agrees
        proves less: the first step of Adam, for example, hides a wrong scale
        of the gradient.
        """
        return self.ancestors_of(self.failures)

    def ancestors_of(self, numbers: Iterable[int]) -> set[int]:
        """Returns some values and everything they were computed from."""
        found: set[int] = set()
        stack = list(numbers)
        while stack:
            number = stack.pop()
            if number not in found:
                found.add(number)
                stack.extend(self.record.nodes[number].operands)
        return found

    @functools.cached_property
    def _users(self) -> dict[int, list[int]]:
        users = collections.defaultdict(list)
        for node in self.record.nodes:
            for operand in node.operands:
                users[operand].append(node.number)
        return users

    @functools.cached_property
    def _backward(self) -> list[bool]:
        backward = [False] * len(self.record.nodes)
        for node in reversed(self.record.nodes):
            users = self._users[node.number]
            backward[node.number] = "transpose(" in node.scope or (
                bool(users) and all(backward[user] for user in users)
            )
        return backward

    @functools.cached_property
    def _constant(self) -> list[bool]:
        constant: list[bool] = []
        for node in self.record.nodes:
            constant.append(
                node.primitive != "input"
                and all(constant[operand] for operand in node.operands)
            )
        return constant

    @functools.cached_property
    def _verified(self) -> list[bool]:
        nodes = self.record.nodes
        verified = [False] * len(nodes)
        relevant = self.ancestors_of_failures
        for node in reversed(nodes):
            users = [nodes[i] for i in self._users[node.number]]
            users = [user for user in users if user.number in relevant]
            verified[node.number] = (
                self.is_matched(node.number)
                or node.primitive in ROOTS
                and self.matching.has_reciprocal(self.side, node.number)
                or node.primitive not in LEAVES
                and not node.fingerprint.is_constant
                and self._is_confirmed(node.number, users, verified)
            )
        return verified

    def _is_confirmed(
        self, number: int, users: list[Node], verified: list[bool]
    ) -> bool:
        """Whether the values computed from a value show that it is right."""
        kind = self.record.nodes[number].fingerprint.kind
        # The indices of the largest values say little about the values.
        users = [
            user
            for user in users
            if user.fingerprint.kind == kind and not self._skips(user, number)
        ]
        parts = [
            verified[user.number]
            for user in users
            if user.primitive in PARTIAL_READS
        ]
        rest = [
            verified[user.number]
            for user in users
            if user.primitive not in PARTIAL_READS
            and (user.primitive not in MASKING or self._keeps(user, number))
            and not user.fingerprint.is_constant
        ]
        return any(rest) or (bool(parts) and all(parts))

    def _keeps(self, user: Node, number: int) -> bool:
        """Whether an operation that may mask a value has returned it as it is.

        A variance that is at least zero, for example, is not masked.
        """
        value = self.record.nodes[number].value
        return (
            user.primitive in CLIPPING
            and value is not None
            and user.value is not None
            and np.array_equal(user.value, value)
        )

    def _skips(self, user: Node, number: int) -> bool:
        """Whether a convolution's strides leave elements of a value out."""
        if user.primitive != "conv_general_dilated" or (
            user.operands[0] != number
        ):
            return False
        kernel = self.record.nodes[user.operands[-1]].shape
        axes = user.params["dimension_numbers"].rhs_spec[2:]
        return any(
            stride > kernel[axis]
            for stride, axis in zip(
                user.params["window_strides"], axes, strict=True
            )
        )
