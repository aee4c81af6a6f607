"""Proves a mapping: random weights carried through it give equal results."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from common.alignment.arrangement import Arrangement
from common.alignment.fill import random_like
from common.alignment.matching import Pair
from common.alignment.sides import Run, Side
from common.alignment.ties import carried_values, components
from common.layouts import Layout

DRAWS = 2
"""How many times random weights are drawn."""

SMALL = 1e-3  # relative to the largest gradient, below which only the absolute
# error counts: rounding errors are those of the largest intermediate values


@dataclasses.dataclass(frozen=True)
class Proof:
    """How far two models are apart with random weights.

    Attributes:
        outputs: the largest relative error of an output.
        gradients: the largest relative error of a gradient.
        worst: the right array with that error.
    """

    outputs: float
    gradients: float
    worst: str

    def holds(self, outputs: float, gradients: float) -> bool:
        """Whether both errors are within these bounds."""
        return self.outputs <= outputs and self.gradients <= gradients


def output_error(
    left: Sequence[np.ndarray], right: Sequence[np.ndarray]
) -> float:
    """Returns the largest relative error of the outputs of two runs."""
    if [x.size for x in left] != [x.size for x in right]:
        return np.inf
    if not all(np.isfinite(x).all() for x in (*left, *right)):
        return np.inf
    pairs = zip(left, right, strict=True)
    return max((_error(a, b) for a, b in pairs), default=0.0)


def _error(a: np.ndarray, b: np.ndarray, floor: float = 0.0) -> float:
    if a.dtype.kind in "biu" and b.dtype.kind in "biu":
        return 0.0 if np.array_equal(a, b) else np.inf
    scale = max(
        float(np.max(np.abs(a), initial=0)),
        float(np.max(np.abs(b), initial=0)),
        floor,
    )
    return float(np.max(np.abs(a - b), initial=0)) / (scale or 1.0)


def prove(
    sides: tuple[Side, Side],
    arrangement: Arrangement,
    pairs: Iterable[Pair],
    layouts: Mapping[str, Layout],
) -> Proof:
    """Runs both models with random weights, and compares all results.

    Args:
        sides: both models.
        arrangement: how their arrays were cut.
        pairs: the pairs of pieces, which say how gradients correspond.
        layouts: the mapping; the right weights are made with it.
    """
    pairs = list(pairs)
    found = [
        _prove_once(sides, arrangement, pairs, layouts, seed)
        for seed in range(1, DRAWS + 1)
    ]
    worst = max(found, key=lambda proof: proof.gradients)
    outputs = max(proof.outputs for proof in found)
    return Proof(outputs, worst.gradients, worst.worst)


def _prove_once(sides, arrangement, pairs, layouts, seed) -> Proof:
    left, right = _random_weights(sides, arrangement, pairs, layouts, seed)
    first = sides[0].run(left, seed)
    del left
    second = sides[1].run(right, seed)
    del right
    gradients, worst = gradient_error(first, second, pairs)
    return Proof(output_error(first.outputs, second.outputs), gradients, worst)


def _random_weights(sides, arrangement, pairs, layouts, seed):
    """Returns all arrays of both sides; nothing else holds their values."""
    rng = np.random.default_rng(seed)
    values, others = carried_values(
        pairs, lambda piece: random_like(piece.values(seed), rng)
    )
    for half, known in zip(arrangement.halves, (values, others), strict=True):
        for piece in half.pieces:  # without effect and counterpart
            if piece not in known:
                known[piece] = random_like(piece.values(seed), rng)
    left = arrangement.left.fill(sides[0].originals, values=values)
    right = arrangement.right.fill(sides[1].originals, values=others)
    for name, layout in layouts.items():
        right[name] = np.asarray(layout.apply(left))
    return left, right


def gradient_error(
    left: Run, right: Run, pairs: Iterable[Pair]
) -> tuple[float, str]:
    """Returns the largest relative error of a gradient, and where it is.

    The gradients of tied pieces are added up.
    """
    top = max(
        (
            float(np.max(np.abs(x), initial=0))
            for run in (left, right)
            for x in run.gradients.values()
        ),
        default=0.0,
    )
    worst = (0.0, "")
    for group in components(pairs):
        lefts = {pair.left: pair for pair in group}
        rights = {pair.right: pair for pair in group}
        first = group[0]
        if len(group) == 1:
            a = first.to_right(np.asarray(first.left.of(left.gradients)))
            b = np.asarray(first.right.of(right.gradients))
        elif len(lefts) == 1:
            a = np.asarray(first.left.of(left.gradients))
            b = sum(
                p.to_left(np.asarray(p.right.of(right.gradients)))
                for p in group
            )
        elif len(rights) == 1:
            b = np.asarray(first.right.of(right.gradients))
            a = sum(
                p.to_right(np.asarray(p.left.of(left.gradients)))
                for p in group
            )
        else:
            continue
        error = _error(np.asarray(a), np.asarray(b), SMALL * top)
        worst = max(worst, (error, first.right.array))
    return worst
