"""Runs the search, and turns an arrangement into a mapping."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from common.agreement import (
    NEARLY_EQUAL,
    NEARLY_EQUAL_GRADIENTS,
)
from common.alignment.arrangement import Arrangement, Half
from common.alignment.assembly import Assembly, assemble
from common.alignment.elimination import pair_dead
from common.alignment.fill import random_like
from common.alignment.matching import Evidence, Pair
from common.alignment.proof import Proof, prove
from common.alignment.rearranged import rearranged
from common.alignment.runs import Runs
from common.alignment.search import best_first
from common.alignment.sides import Run
from common.alignment.ties import (
    Limits,
    Pairing,
    Resolver,
    Values,
    carried_values,
    likely_pairs,
)
from common.rendering.progress import ProgressBar

REORDERED = 3
"""How many arrangements are also tried with elements in another order."""
SEARCHED = 0.7
"""The share of the tries that elements in another order do not need."""
MUCH_CLOSER = 0.2
"""The share of an error that shows that arrays are cut in a better way."""
MOST_LOST = 0.5
"""The largest share of elements without a counterpart of similar models."""
IMPOSSIBLE = "no way to cut the arrays gives each of them a counterpart"
"""What is said of models that no mapping can make equal."""


@dataclasses.dataclass(frozen=True)
class Mapping:
    """A mapping, and how it was proved.

    Attributes:
        arrangement: how the arrays were cut.
        pairing: which pieces correspond.
        eliminated: the pairs without an effect.
        assembly: the layouts of the right arrays.
        proof: how far the models are apart with random weights.
    """

    arrangement: Arrangement
    pairing: Pairing
    eliminated: list[Pair]
    assembly: Assembly
    proof: Proof

    @property
    def pairs(self) -> list[Pair]:
        """All pairs of pieces."""
        return self.pairing.pairs + self.eliminated


class Aligner:
    """Searches a mapping between the arrays of two models.

    Attributes:
        runs: runs both models.
        cuts: how many ways of cutting the arrays were tried.
        best: the arrangement whose outputs agree best, and their error.
        natural: the first arrangement in which each piece can have a
            counterpart, or the first one, and the error of its outputs.
        fitting: the arrangement of this kind whose outputs agree best.
        failure: why the last arrangement with equal outputs did not give a
            mapping.
        suspect: that arrangement, and random values of paired pieces with
            which the models differ.
    """

    def __init__(self, runs: Runs, max_cuts: int):
        self.runs, self.max_cuts = runs, max_cuts
        self.cuts = 0
        nothing = Arrangement(Half(()), Half(()))
        self.best: tuple[float, Arrangement] = (np.inf, nothing)
        self.natural: tuple[float, Arrangement] = (np.inf, nothing)
        self.fitting: tuple[float, Arrangement] = (np.inf, nothing)
        self.failure = ""
        self.suspect: tuple[Arrangement, Values] | None = None

    def _possible(
        self, start: Arrangement, most: int
    ) -> Iterator[Arrangement]:
        """Yields the arrangements that are worth a run, best first.

        Arrangements in which a class of pieces is on one side only are cut
        further without a run. The first one is always yielded.

        Args:
            start: the arrangement of whole arrays.
            most: how many arrangements are looked at.
        """
        ways = itertools.islice(best_first(start), max(1, most))
        for i, arrangement in enumerate(ways):
            if i == 0 or arrangement.is_possible(self.runs.weak):
                yield arrangement

    def error(self, arrangement: Arrangement) -> float:
        """Returns the error of the outputs at the first symmetric point."""
        error = self.runs.error(arrangement, self.runs.points[0])
        is_first = self.best[1].is_empty
        self.cuts += 1
        if error < self.best[0] or is_first:
            self.best = error, arrangement
        has_pairs = arrangement.is_balanced and arrangement.left.pieces
        if is_first or (has_pairs and not self.natural[1].is_balanced):
            self.natural = error, arrangement
        fits = arrangement.is_balanced and arrangement.lost <= MOST_LOST
        if fits and error < self.fitting[0]:
            self.fitting = error, arrangement
        return error

    def find_place(self) -> tuple[float, Arrangement, Values]:
        """Returns where to look for a difference, and the error there.

        If nothing was searched yet, arrangements are until one fits.
        """
        if self.natural[1].is_empty:
            start = self.runs.start()
            for arrangement in self._possible(start, self.max_cuts):
                error = self.error(arrangement)
                if error <= self.runs.tolerance("outputs"):
                    break
                if arrangement.is_balanced and error < NEARLY_EQUAL:
                    break
        best, closest = self.best
        if self.suspect is not None:
            arrangement, values = self.suspect
            error = self.runs.error(arrangement, self.runs.points[0], values)
            return error, arrangement, values
        is_close = best < NEARLY_EQUAL and not self.natural[1].is_balanced
        if is_close or best <= self.runs.tolerance("outputs"):
            return best, closest, ({}, {})
        if self.fitting[0] < MUCH_CLOSER * self.natural[0]:
            return (*self.fitting, ({}, {}))
        return (*self.natural, ({}, {}))

    # --- the search ---------------------------------------------------------

    def search(self, bar: ProgressBar) -> tuple[Mapping | None, bool]:
        """Searches a mapping.

        Returns:
            The mapping, or `None` if there is none, and whether it is exact.
        """
        balanced: list[Arrangement] = []
        near: list[tuple[Arrangement, float]] = []
        concluded = 0
        start = self.runs.start()
        bound = self.runs.tolerance("outputs")
        most = int(SEARCHED * self.max_cuts)
        for arrangement in self._possible(start, most):
            error = self._try(arrangement, bar)
            if arrangement.is_balanced and arrangement.left.pieces:
                balanced.append(arrangement)
            if error <= bound:
                found = self.conclude(arrangement)
                if found is not None:
                    return found, True
            elif error < NEARLY_EQUAL and arrangement.lost <= MOST_LOST:
                if arrangement.is_balanced and concluded < REORDERED:
                    # A balanced near miss wins at once, if it can be paired.
                    concluded += 1
                    found = self.conclude(arrangement, error)
                    if found is not None:
                        return found, False
                else:
                    near.append((arrangement, error))
        near.sort(key=_rank)
        for arrangement, error in near[:REORDERED]:
            found = self.conclude(arrangement, error)
            if found is not None:
                return found, False
        if not balanced:
            if not start.is_possible(self.runs.weak):
                self.failure = self.failure or IMPOSSIBLE
                return None, False
            balanced = [start]
        reordered: list[tuple[Arrangement, float]] = []
        for tolerance in (bound, NEARLY_EQUAL):
            for arrangement in self._rearranged(
                balanced[:REORDERED], tolerance
            ):
                error = self._try(arrangement, bar)
                if error <= bound:
                    found = self.conclude(arrangement)
                    if found is not None:
                        return found, True
                elif error < NEARLY_EQUAL:
                    reordered.append((arrangement, error))
        reordered.sort(key=_rank)
        for arrangement, error in reordered[: 2 * REORDERED]:
            found = self.conclude(arrangement, error)
            if found is not None:
                return found, False
        return None, False

    def _try(self, arrangement: Arrangement, bar: ProgressBar) -> float:
        error = self.error(arrangement)
        bar.describe("cutting arrays", f"error {self.best[0]:.1e}")
        bar.advance()
        return error

    def _rearranged(
        self, arrangements: Iterable[Arrangement], tolerance: float
    ) -> Iterator[Arrangement]:
        def run(arrangement: Arrangement) -> tuple[Run, Run]:
            if self.cuts >= self.max_cuts:
                raise _Exhausted
            self.cuts += 1
            return self.runs.run(arrangement, self.runs.points[0])

        ways = [rearranged(found, run, tolerance) for found in arrangements]
        with contextlib.suppress(_Exhausted):
            for group in itertools.zip_longest(*ways):
                for new in group:
                    if self.cuts >= self.max_cuts:
                        return
                    if new is not None:
                        yield new

    # --- the mapping --------------------------------------------------------

    def conclude(
        self, arrangement: Arrangement, error: float = 0.0
    ) -> Mapping | None:
        """Pairs all pieces of an arrangement, and proves the mapping.

        Args:
            arrangement: how the arrays are cut.
            error: of the outputs at the symmetric point, if they are not
                equal.

        Returns:
            The mapping, or `None` if there is none.
        """
        limits = Limits(
            self.runs.tolerance("match"), self.runs.tolerance("effect")
        )
        if error:
            factor, most = NEARLY_EQUAL_GRADIENTS
            match = min(most, max(limits.match, factor * error))
            limits = Limits(match, limits.effect, ratio=3.0)
        evidence = None
        for point in self.runs.points:
            new, more = self.runs.look(arrangement, point)
            if not np.isfinite(new):
                continue
            if new > max(self.runs.tolerance("outputs"), 10 * error):
                self.failure = f"outputs differ by {new:.2g} at another point"
                return None
            evidence = more if evidence is None else evidence.add(more)
        if evidence is None:
            return None

        def new_evidence(values: Values) -> Evidence:
            return self.runs.look(arrangement, self.runs.points[0], values)[1]

        pairing = Resolver(evidence, new_evidence, limits).resolve()
        if not pairing.is_complete:
            names = [
                sorted({p.array for p in pieces})
                for pieces in (pairing.left, pairing.right)
            ]
            self.failure = (
                f"no array has the gradients of {names[0]} (left) and "
                f"{names[1]} (right)"
            )
            self._suspect(arrangement, likely_pairs(evidence, limits), error)
            return None
        eliminated = pair_dead(pairing.pairs, *pairing.dead)
        pairs = pairing.pairs + eliminated
        shapes = self.runs.sides[1].array_shapes
        assembly = assemble(pairs, arrangement.right, shapes)
        proof = prove(self.runs.sides, arrangement, pairs, assembly.layouts)
        found = Mapping(arrangement, pairing, eliminated, assembly, proof)
        bounds = (
            self.runs.tolerance("outputs"),
            self.runs.tolerance("gradients"),
        )
        if error:
            factor, most = NEARLY_EQUAL_GRADIENTS
            bounds = max(NEARLY_EQUAL, 3 * error), most
        if proof.holds(*bounds):
            return found
        self.failure = (
            f"paired, but with random weights the outputs differ by "
            f"{proof.outputs:.2g} and the gradients by {proof.gradients:.2g}, "
            f"most at {proof.worst}"
        )
        self._suspect(arrangement, pairs, error)
        return None

    def _suspect(
        self, arrangement: Arrangement, pairs: list[Pair], error: float
    ) -> None:
        """Keeps random values with which models differ that looked equal."""
        if error or self.suspect is not None:
            return
        rng = np.random.default_rng(1)
        values = carried_values(
            pairs, lambda piece: random_like(piece.values(0), rng)
        )
        self.suspect = arrangement, values


class _Exhausted(Exception):
    """As many ways of cutting as allowed were tried."""


def _rank(found: tuple[Arrangement, float]) -> tuple[bool, float]:
    """Orders arrangements: those in which each piece can have a counterpart
    first, then by the error of the outputs.
    """
    return not found[0].is_balanced, found[1]
