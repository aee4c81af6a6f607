"""Runs both models at symmetric points."""

from collections.abc import Mapping

import numpy as np

from common.agreement import EPS, alignment_tolerance
from common.alignment.arrangement import Arrangement, Half
from common.alignment.fill import SCALES
from common.alignment.matching import Evidence, Sketches
from common.alignment.pieces import Piece
from common.alignment.proof import output_error
from common.alignment.sides import Run, Side
from common.alignment.ties import Values


class Runs:
    """Both models, and the outputs of their last runs.

    Attributes:
        sides: both models, compiled.
        dtype: the narrowest dtype that they compute in.
        points: the numbers of the symmetric points that are used.
        unused: the arrays of each side without an effect.
        weak: the arrays of each side whose gradients are round-off at the
            symmetric points of `start`.
    """

    def __init__(self, sides: tuple[Side, Side]):
        self.sides = sides
        eps = max(side.eps for side in sides)
        names = ("float64", "float32", "float16")
        self.dtype = next((n for n in names if eps <= EPS[n]), "bfloat16")
        self.points = list(range(len(SCALES)))
        self.unused: tuple[list[str], list[str]] = ([], [])
        self.weak: tuple[set[str], set[str]] = (set(), set())
        self._last: dict[int, tuple[object, list[np.ndarray]]] = {}

    def tolerance(self, quantity: str) -> float:
        """Returns the bound for a quantity."""
        return alignment_tolerance(self.dtype, quantity)

    def run(self, arrangement: Arrangement, point: int) -> tuple[Run, Run]:
        """Runs both models at a symmetric point."""
        return (
            self._run(0, arrangement.left, point),
            self._run(1, arrangement.right, point),
        )

    def _run(
        self,
        i: int,
        half: Half,
        point: int,
        values: Mapping[Piece, np.ndarray] | None = None,
    ) -> Run:
        side = self.sides[i]
        return side.run(half.fill(side.originals, point, values))

    def error(
        self,
        arrangement: Arrangement,
        point: int,
        values: Values = ({}, {}),
    ) -> float:
        """Returns the error of the outputs at a symmetric point.

        Only a model whose arrays changed is run.

        Args:
            arrangement: how the arrays are cut.
            point: the number of the symmetric point.
            values: the values of some pieces instead.
        """
        outputs = []
        for i, half in enumerate(arrangement.halves):
            key = (half.key, point)
            known = self._last.get(i)
            if values[i] or known is None or known[0] != key:
                run = self._run(i, half, point, values[i])
                known = (None if values[i] else key, run.outputs)
                self._last[i] = known
            outputs.append(known[1])
        return output_error(*outputs)

    def look(
        self,
        arrangement: Arrangement,
        point: int,
        values: Values = ({}, {}),
    ) -> tuple[float, Evidence]:
        """Returns the error of the outputs, and what the gradients say.

        The gradients of one model are not kept while the other one is run.
        """
        left, right = (
            Sketches.of(half, self._run(i, half, point, values[i]))
            for i, half in enumerate(arrangement.halves)
        )
        evidence = Evidence(
            arrangement, (left, right), self.tolerance("floor")
        )
        return output_error(left.outputs, right.outputs), evidence

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
        usable: list[int] = []
        largest: tuple[dict[str, float], ...] = ({}, {})
        dead: list[list[str]] = [[], []]
        for point in self.points:
            tops = [
                _largest(self._run(i, half, point))
                for i, half in enumerate(whole.halves)
            ]
            if all(top is not None for top in tops):
                usable.append(point)
            for found, top in zip(largest, tops, strict=True):
                for name, x in (top or {}).items():
                    found[name] = max(found.get(name, 0.0), x)
            dead = [
                [name for name, top in found.items() if top == 0]
                for found in largest
            ]
            if usable and not any(dead):
                break
        if not usable:
            return whole
        for found, names in zip(largest, self.weak, strict=True):
            bound = self.tolerance("effect") * max(found.values(), default=0)
            names |= {name for name, top in found.items() if top <= bound}
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
            values = {p: np.asarray(factor * p.values(point)) for p in pieces}
            runs.append(self._run(i, half, point, values).outputs)
        return output_error(*runs) > 0


def _largest(run: Run) -> dict[str, float] | None:
    """Returns the largest gradient of each array.

    `None` if an output is not finite, or if all gradients are zero.
    """
    if not run.is_finite:
        return None
    found = {
        name: float(np.max(np.abs(x), initial=0))
        for name, x in run.gradients.items()
    }
    return found if not found or any(found.values()) else None
