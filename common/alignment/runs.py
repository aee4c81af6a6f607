"""Runs both models at symmetric points."""

import numpy as np

from common.agreement import EPS, alignment_tolerance
from common.alignment.arrangement import Arrangement, Half
from common.alignment.fill import SCALES
from common.alignment.matching import Evidence
from common.alignment.pieces import Piece
from common.alignment.proof import output_error
from common.alignment.sides import Run, Side
from common.alignment.ties import Values


class Runs:
    """Both models, and their last runs.

    Attributes:
        sides: both models, compiled.
        dtype: the narrowest dtype that they compute in.
        points: the numbers of the symmetric points that are used.
        unused: the arrays of each side without an effect.
    """

    def __init__(self, sides: tuple[Side, Side]):
        self.sides = sides
        eps = max(side.eps for side in sides)
        self.dtype = next(
            (name for name in ("float64", "float32") if eps <= EPS[name]),
            "bfloat16",
        )
        self.points = list(range(len(SCALES)))
        self.unused: tuple[list[str], list[str]] = ([], [])
        self._last: dict[int, tuple[object, Run]] = {}

    def tolerance(self, quantity: str) -> float:
        """Returns the bound for a quantity."""
        return alignment_tolerance(self.dtype, quantity)

    def forget(self) -> None:
        """Frees the gradients of the last runs."""
        self._last.clear()

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
            known = self._last.get(i)
            if values[i] or known is None or known[0] != key:
                self._last.pop(i, None)
                known = None  # frees the gradients before there are new ones
                filled = half.fill(side.originals, point, values[i])
                known = (None if values[i] else key, side.run(filled))
                self._last[i] = known
            runs.append(known[1])
        return runs[0], runs[1]

    def look(
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
        dead: list[list[str]] = [[], []]
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


def _has_gradient(run: Run) -> bool:
    return not run.gradients or any(np.any(x) for x in run.gradients.values())
