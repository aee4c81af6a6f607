"""Two models are trained side by side, and the first mismatch is kept."""

import optax
import pytest

from common.agreement import EPS
from common.comparison.duel import Duel
from common.comparison.halves import make_halves
from common.comparison.programs import SIDES, Program
from tests.comparison.duelists import LABELS, MAPPING, XS, YS, loss, models


def duel(steps=2, **fault):
    both = make_halves(
        models(**fault), (None, None), LABELS, MAPPING, "float64"
    )
    programs = [
        Program(half, side, (XS, YS), loss, optax.adam(1e-2))
        for half, side in zip(both, SIDES, strict=True)
    ]
    for program in programs:
        program.trace_step(True, EPS["float64"])
    programs[1].outputs = programs[0].outputs
    left, right = programs
    made = Duel((left, right), MAPPING, "float64", "float64", steps)
    ticks: list[int] = []
    made.run(lambda: ticks.append(0))
    assert len(ticks) == steps
    return made


def test_equal_models_agree():
    found = duel()
    assert found.failure is None
    assert all(row.ok for row in found.rows)
    assert not found.kept_buffers
    assert found.losses.keys() == set(LABELS)
    assert found.losses["one"][0] > found.losses["one"][1]


@pytest.mark.parametrize(
    ("fault", "quantity", "step", "leaf"),
    [
        ({"scale": 1 + 1e-6}, "forward", 0, "outputs"),
        ({"momentum": 0.5}, "buffers", 1, "seen ~ total"),
        ({"overwrites": True}, "overwritten", 1, ""),
    ],
    ids=str,
)
def test_the_first_mismatch_is_kept(fault, quantity, step, leaf):
    found = duel(steps=1, **fault).failure
    assert found is not None
    assert found.row.quantity == quantity
    assert found.place.step == step
    assert leaf in found.place.leaf
