"""Runs the search, and turns an arrangement into a mapping."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from common.agreement import (
    EPS,
    NEARLY_EQUAL,
    NEARLY_EQUAL_GRADIENTS,
    alignment_tolerance,
)
from common.alignment.arrangement import Arrangement, Half
from common.alignment.assembly import Assembly, assemble
from common.alignment.elimination import pair_dead
from common.alignment.fill import SCALES, random_like
from common.alignment.matching import Evidence, Pair
from common.alignment.pieces import Piece
from common.alignment.proof import Proof, output_error, prove
from common.alignment.rearranged import rearranged
from common.alignment.search import best_first
from common.alignment.sides import Run, Side
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
MOST_LOST = 0.5
"""The largest share of elements without a counterpart of similar models."""


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
        sides: both models, compiled.
        dtype: the narrowest dtype that they compute in.
        cuts: how many ways of cutting the arrays were tried.
        unused: the arrays of each side without an effect.
        best: the arrangement whose outputs agree best, and their error.
        natural: the first arrangement in which each piece can have a
            counterpart, or the first one, and the error of its outputs.
        failure: why the last arrangement with equal outputs did not give a
            mapping.
        suspect: that arrangement, and random values of paired pieces with
            which the models differ.
    """

    def __init__(self, sides: tuple[Side, Side], max_cuts: int):
        self.sides, self.max_cuts = sides, max_cuts
        eps = max(side.eps for side in sides)
        self.dtype = next(
            (name for name in ("float64", "float32") if eps <= EPS[name]),
            "bfloat16",
        )
        self.cuts = 0
        self.unused: tuple[list[str], list[str]] = ([], [])
        self.best: tuple[float, Arrangement | None] = (np.inf, None)
        self.natural: tuple[float, Arrangement] | None = None
        self.failure = ""
        self.suspect: tuple[Arrangement, Values] | None = None
        self.points = list(range(len(SCALES)))
        self._runs: dict[int, tuple[object, Run]] = {}

    def tolerance(self, quantity: str) -> float:
        """Returns the bound for a quantity."""
        return alignment_tolerance(self.dtype, quantity)

    # --- runs ---------------------------------------------------------------

    def run(
        self,
        arrangement: Arrangement,
        point: int,
        values: Values = ({}, {}),
    ) -> tuple[Run, Run]:
        """Runs both models at a symmetric point."""
        runs = []
        for i, (side, half) in enumerate(
            zip(self.sides, arrangement.halves, strict=True)
        ):
            key = (half.key, point)
            known = self._runs.get(i)
            if values[i] or known is None or known[0] != key:
                self._runs.pop(i, None)
                known = None  # frees the gradients before there are new ones
                filled = half.fill(side.originals, point, values[i])
                known = (None if values[i] else key, side.run(filled))
                self._runs[i] = known
            runs.append(known[1])
        return runs[0], runs[1]

    def _look(
        self,
        arrangement: Arrangement,
        point: int,
        values: Values = ({}, {}),
    ) -> tuple[float, Evidence]:
        """Returns the error of the outputs, and what the gradients say.

        The gradients themselves are not kept.
        """
        runs = self.run(arrangement, point, values)
        evidence = Evidence(arrangement, [runs], self.tolerance("floor"))
        return output_error(*runs), evidence

    def error(self, arrangement: Arrangement) -> float:
        """Returns the error of the outputs at the first symmetric point."""
        self.cuts += 1
        error = output_error(*self.run(arrangement, self.points[0]))
        if error < self.best[0] or self.best[1] is None:
            self.best = error, arrangement
        if self.natural is None or (
            arrangement.is_balanced and not self.natural[1].is_balanced
        ):
            self.natural = error, arrangement
        return error

    def find_place(self) -> tuple[float, Arrangement, Values]:
        """Returns where to look for a difference, and the error there.

        If nothing was searched yet, arrangements are until one fits.
        """
        if self.natural is None:
            for arrangement in itertools.islice(
                best_first(self.start()), self.max_cuts
            ):
                error = self.error(arrangement)
                if error <= self.tolerance("outputs"):
                    break
                if arrangement.is_balanced and error < NEARLY_EQUAL:
                    break
        assert self.natural is not None
        assert self.best[1] is not None
        if self.suspect is not None:
            arrangement, values = self.suspect
            runs = self.run(arrangement, self.points[0], values)
            return output_error(*runs), arrangement, values
        if self.best[0] < NEARLY_EQUAL and not self.natural[1].is_balanced:
            return (*self.best, ({}, {}))
        if self.best[0] <= self.tolerance("outputs"):
            return (*self.best, ({}, {}))
        return (*self.natural, ({}, {}))

    # --- the search ---------------------------------------------------------

    def start(self) -> Arrangement:
        """Returns the arrangement of whole arrays.

        Arrays without an effect keep their values. Symmetric points at which
        an output is not finite are not used.

        Raises:
            ValueError: if no output of a model is finite.
        """
        whole = Arrangement(
            Half.whole(self.sides[0].array_shapes),
            Half.whole(self.sides[1].array_shapes),
        )
        usable, largest = [], [{}, {}]
        for point in self.points:
            runs = self.run(whole, point)
            finite = all(run.is_finite for run in runs)
            if finite and all(_has_gradient(run) for run in runs):
                usable.append(point)
                for found, run in zip(largest, runs, strict=True):
                    for name, x in run.gradients.items():
                        top = float(np.max(np.abs(x), initial=0))
                        found[name] = max(found.get(name, 0.0), top)
            dead = [
                [name for name, top in found.items() if top == 0]
                for found in largest
            ]
            if usable and not any(dead):
                break
        if not usable:
            return whole
        rest = [p for p in self.points if p not in usable]
        self.points = usable + [p for p in rest if p > max(usable)]
        for i, names in enumerate(dead):
            half = whole.halves[i]
            pieces = [p for p in half.pieces if p.array in names]
            if pieces and not self._changes_outputs(i, half, pieces):
                self.unused[i].extend(names)
                whole = whole.replace(i, half.keep(pieces))
        return whole

    def _changes_outputs(
        self, i: int, half: Half, pieces: list[Piece]
    ) -> bool:
        """Whether arrays without a gradient have an effect all the same."""
        point = self.points[0]
        runs = []
        for factor in (1.0, 1.25):
            values = {p: factor * p.values(point) for p in pieces}
            filled = half.fill(self.sides[i].originals, point, values)
            runs.append(self.sides[i].run(filled))
        return output_error(*runs) > 0

    def search(self, bar: ProgressBar) -> tuple[Mapping | None, bool]:
        """Searches a mapping.

        Returns:
            The mapping, or `None` if there is none, and whether it is exact.
        """
        balanced: list[Arrangement] = []
        near: list[tuple[Arrangement, float]] = []
        start = self.start()
        bound = self.tolerance("outputs")
        ways = itertools.islice(
            best_first(start), int(SEARCHED * self.max_cuts) + 1
        )
        for arrangement in ways:
            error = self._try(arrangement, bar)
            if arrangement.is_balanced:
                balanced.append(arrangement)
            if error <= bound:
                found = self.conclude(arrangement)
                if found is not None:
                    return found, True
            elif error < NEARLY_EQUAL and arrangement.lost <= MOST_LOST:
                near.append((arrangement, error))
                if arrangement.is_balanced:
                    break
        near.sort(key=_rank)
        for arrangement, error in near[:REORDERED]:
            found = self.conclude(arrangement, error)
            if found is not None:
                return found, False
        if self.natural is not None and not balanced:
            balanced = [self.natural[1]]
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
            self.cuts += 1
            return self.run(arrangement, self.points[0])

        for arrangement in arrangements:
            for new in rearranged(arrangement, run, tolerance):
                if self.cuts >= self.max_cuts:
                    return
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
        limits = Limits(self.tolerance("match"), self.tolerance("effect"))
        if error:
            factor, most = NEARLY_EQUAL_GRADIENTS
            match = min(most, max(limits.match, factor * error))
            limits = Limits(match, limits.effect, ratio=3.0)
        evidence = None
        for point in self.points:
            new, more = self._look(arrangement, point)
            if not np.isfinite(new):
                continue
            if new > max(self.tolerance("outputs"), 10 * error):
                self.failure = f"outputs differ by {new:.2g} at another point"
                return None
            evidence = more if evidence is None else evidence.add(more)
        if evidence is None:
            return None

        def new_evidence(values: Values) -> Evidence:
            return self._look(arrangement, self.points[0], values)[1]

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
        shapes = self.sides[1].array_shapes
        assembly = assemble(pairs, arrangement.right, shapes)
        self._runs.clear()
        proof = prove(self.sides, arrangement, pairs, assembly.layouts)
        found = Mapping(arrangement, pairing, eliminated, assembly, proof)
        bounds = self.tolerance("outputs"), self.tolerance("gradients")
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


def _rank(found: tuple[Arrangement, float]) -> tuple[bool, float]:
    """Orders arrangements: those in which each piece can have a counterpart
    first, then by the error of the outputs.
    """
    return not found[0].is_balanced, found[1]


def _has_gradient(run: Run) -> bool:
    return not run.gradients or any(
        np.any(x) for x in run.gradients.values()
    )
