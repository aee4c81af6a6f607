"""Pairs all pieces, and resolves those that look alike at first."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from common.alignment.fill import shuffled
from common.alignment.matching import Evidence, Option, Pair, relative
from common.alignment.pieces import Piece

ROUNDS = 60
"""How often new gradients are taken to resolve what looks alike."""

Values = tuple[dict[Piece, np.ndarray], dict[Piece, np.ndarray]]
"""The values of some of the pieces of each side."""

NewEvidence = Callable[[Values], Evidence]
"""Takes gradients with the given values of some pieces."""


@dataclasses.dataclass
class Pairing:
    """Which pieces correspond.

    Attributes:
        pairs: the pairs. A piece is in several of them if it is tied.
        choices: for each free choice, the right piece and the left ones that
            it may be; the first is the one that was chosen.
        tied: the pieces of which the gradient is a sum, with their parts.
        dead: for each side, the pieces without an effect.
        left: left pieces that have an effect and no counterpart.
        right: right pieces that have an effect and no counterpart.
    """

    pairs: list[Pair]
    choices: list[tuple[Piece, list[Piece]]]
    tied: list[tuple[Piece, list[Piece]]]
    dead: tuple[list[Piece], list[Piece]]
    left: list[Piece]
    right: list[Piece]

    @property
    def is_complete(self) -> bool:
        """Whether each piece that has an effect has a counterpart."""
        return not (self.left or self.right)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What counts as equal.

    Attributes:
        match: the largest relative error of equal gradients.
        effect: the gradient, relative to the largest one, above which a
            piece has an effect.
        ratio: how many times the smallest error counts as equal, where the
            models differ slightly anyway.
    """

    match: float
    effect: float
    ratio: float | None = None


class Resolver:
    """Pairs pieces by their gradients, and takes more where some look alike.

    Pieces that are paired get the same random values on both sides. What
    still looks alike once all others are paired is a free choice, and the
    piece of the module that its siblings came from is chosen.
    """

    def __init__(
        self, evidence: Evidence, new_evidence: NewEvidence, limits: Limits
    ):
        self.evidence, self.new_evidence = evidence, new_evidence
        self.limits = limits
        self.lefts, self.rights = (
            [i for i in range(len(half.pieces)) if self._is_alive(side, i)]
            for side, half in enumerate(evidence.arrangement.halves)
        )
        self.firm: dict[int, Option] = {}
        self.groups: list[Pair] = []
        self.tied: list[tuple[Piece, list[Piece]]] = []
        self.choices: list[tuple[Piece, list[Piece]]] = []
        self.in_sums: tuple[set[int], set[int]] = (set(), set())

    def _is_alive(self, side: int, number: int) -> bool:
        return self.evidence.has_effect(side, number, self.limits.effect)

    def resolve(self) -> Pairing:
        """Pairs all pieces."""
        limits = self.limits
        options = self.evidence.options(
            self.rights, self.lefts, limits.match, limits.ratio
        )
        self._find_sums(options)
        for round_ in range(ROUNDS):
            changed = self._settle(options)
            open_ = self._open(options)
            if not open_:
                break
            if not changed and round_ > 0:
                self._choose(open_)
                self._settle(options)
                if not self._open(options):
                    break
            values = self._values(np.random.default_rng(round_ + 5))
            evidence = self.new_evidence(values)
            found = evidence.options(
                list(self._open(options)),
                [i for i in self.lefts if i not in self._used()],
                limits.match,
                limits.ratio,
            )
            for right, new in found.items():
                allowed = {(o.left, o.order) for o in options[right]}
                options[right] = [
                    o for o in new if (o.left, o.order) in allowed
                ]
        return self._pairing()

    def _used(self) -> set[int]:
        return {o.left for o in self.firm.values()} | self.in_sums[0]

    def _open(
        self, options: Mapping[int, list[Option]]
    ) -> dict[int, list[Option]]:
        """Returns the options of the right pieces that are not yet paired."""
        used = self._used()
        found = {}
        for right, all_options in options.items():
            if right in self.firm or right in self.in_sums[1]:
                continue
            free = [o for o in all_options if o.left not in used]
            if free:
                found[right] = free
        return found

    def _settle(self, options: Mapping[int, list[Option]]) -> bool:
        """Pairs every piece that has one option only."""
        changed = False
        while True:
            single = [
                (right, free[0])
                for right, free in self._open(options).items()
                if len(free) == 1
            ]
            if not single:
                return changed
            for right, option in single:
                if option.left not in self._used():
                    self.firm[right] = option
            changed = True

    def _choose(self, open_: Mapping[int, list[Option]]) -> None:
        """Chooses one of several pieces that are all right."""
        half = self.evidence.arrangement
        right = next(iter(open_))
        here = _module(half.right.pieces[right])
        kin = collections.Counter(
            _module(half.left.pieces[o.left])
            for r, o in self.firm.items()
            if _module(half.right.pieces[r]) == here
        )
        ordered = sorted(
            open_[right],
            key=lambda o: (-kin[_module(half.left.pieces[o.left])], o.left),
        )
        self.firm[right] = ordered[0]
        lefts = list(dict.fromkeys(o.left for o in ordered))
        self.choices.append(
            (half.right.pieces[right], [half.left.pieces[i] for i in lefts])
        )

    def _find_sums(self, options: Mapping[int, list[Option]]) -> None:
        """Finds tied arrays, whose gradients are sums of others'."""
        reached = {o.left for found in options.values() for o in found}
        lonely = (
            [i for i in self.lefts if i not in reached],
            [i for i in self.rights if not options.get(i)],
        )
        for whole in (0, 1):
            other = 1 - whole
            by_class = self.evidence.by_class(other, lonely[other])
            for number in lonely[whole]:
                if number in self.in_sums[whole]:
                    continue
                pieces = self.evidence.arrangement.halves[whole].pieces
                parts = [
                    i
                    for i in by_class.get(pieces[number].dims, [])
                    if i not in self.in_sums[other]
                ]
                found = self._sum_of(whole, number, parts)
                if found:
                    self._tie(whole, number, found)

    def _sum_of(
        self, whole: int, number: int, parts: Sequence[int]
    ) -> list[tuple[int, int]] | None:
        """Returns the pieces, and their orders, that sum to a gradient."""
        sketches = self.evidence.sketches
        target = sketches[whole][number][0]
        rows = sketches[1 - whole]
        groups: Iterable[tuple[int, ...]] = itertools.combinations(parts, 2)
        if len(parts) > 2:
            groups = itertools.chain(groups, [tuple(parts)])
        for group in groups:
            choices = [range(len(rows[i])) for i in group]
            if len(group) > 2:
                choices = [range(1) for _ in group]
            for orders in itertools.product(*choices):
                pairs = list(zip(group, orders, strict=True))
                total = np.sum([rows[i][o] for i, o in pairs], axis=0)
                error = relative(total, target, self.evidence.floor)
                if error <= self.limits.match:
                    return pairs
        return None

    def _tie(
        self, whole: int, number: int, parts: list[tuple[int, int]]
    ) -> None:
        halves = self.evidence.arrangement.halves
        self.in_sums[whole].add(number)
        for i, order in parts:
            self.in_sums[1 - whole].add(i)
            if whole == 1:
                self.groups.append(self.evidence.pair(i, order, number))
            else:
                # The left is in its first order, the right in this one.
                pair = self.evidence.pair(number, 0, i, order)
                self.groups.append(pair)
        self.tied.append(
            (
                halves[whole].pieces[number],
                [halves[1 - whole].pieces[i] for i, _ in parts],
            )
        )

    def _pairs(self) -> list[Pair]:
        firm = [
            self.evidence.pair(o.left, o.order, right)
            for right, o in self.firm.items()
        ]
        return firm + self.groups

    def _values(self, rng: np.random.Generator) -> Values:
        return carried_values(
            self._pairs(), lambda piece: shuffled(piece.values(0), rng)
        )

    def _pairing(self) -> Pairing:
        halves = self.evidence.arrangement.halves
        used = self._used()
        found = set(self.firm) | self.in_sums[1]
        dead = tuple(
            [p for i, p in enumerate(half.pieces) if i not in alive]
            for half, alive in zip(
                halves, (set(self.lefts), set(self.rights)), strict=True
            )
        )
        return Pairing(
            self._pairs(),
            self.choices,
            self.tied,
            (dead[0], dead[1]),
            [halves[0].pieces[i] for i in self.lefts if i not in used],
            [halves[1].pieces[i] for i in self.rights if i not in found],
        )


def likely_pairs(evidence: Evidence, limits: Limits) -> list[Pair]:
    """Pairs pieces that look alike, in order, without resolving ties."""
    halves = evidence.arrangement.halves
    options = evidence.options(
        range(len(halves[1].pieces)),
        range(len(halves[0].pieces)),
        limits.match,
    )
    used: set[int] = set()
    pairs = []
    for right, found in options.items():
        free = [option for option in found if option.left not in used]
        if free:
            used.add(free[0].left)
            pairs.append(evidence.pair(free[0].left, free[0].order, right))
    return pairs


def _module(piece: Piece) -> str:
    return piece.array.rpartition(".")[0]


def components(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Groups pairs that share a piece, because it is tied."""
    groups: list[list[Pair]] = []
    where: dict[tuple[int, Piece], list[Pair]] = {}
    for pair in pairs:
        keys = (0, pair.left), (1, pair.right)
        found = [where[key] for key in keys if key in where]
        group = found[0] if found else []
        if not found:
            groups.append(group)
        if len(found) == 2 and found[0] is not found[1]:
            group += found[1]
            groups[:] = [g for g in groups if g is not found[1]]
            for old in found[1]:
                where[0, old.left] = where[1, old.right] = group
        group.append(pair)
        for key in keys:
            where[key] = group
    return groups


def carried_values(
    pairs: Iterable[Pair], draw: Callable[[Piece], np.ndarray]
) -> Values:
    """Draws values of left pieces, and carries them to the right ones.

    Args:
        pairs: the pairs.
        draw: draws the values of a left piece.

    Returns:
        The values of the left and of the right pieces.
    """
    left: dict[Piece, np.ndarray] = {}
    right: dict[Piece, np.ndarray] = {}
    for group in components(pairs):
        left[group[0].left] = draw(group[0].left)
        missing = list(group)
        while missing:
            rest = []
            for pair in missing:
                if pair.left in left:
                    right[pair.right] = pair.to_right(left[pair.left])
                elif pair.right in right:
                    left[pair.left] = pair.to_left(right[pair.right])
                else:
                    rest.append(pair)
            missing = rest
    return left, right
