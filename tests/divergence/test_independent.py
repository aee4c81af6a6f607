"""`diff` on faults whose lines were marked before it ran on them."""

import jax
import pytest

from tests.conftest import exhaustive_but
from tests.divergence.mutations.figures import find, run
from tests.divergence.mutations.pair import places
from tests.divergence.unseen import fresh, independent, last

PAIRS = (*independent.PAIRS, *fresh.PAIRS, *last.PAIRS)
FAULTS = [*independent.FAULTS, *fresh.FAULTS, *last.FAULTS]

EXAMPLES = [
    one for one in FAULTS if one[1] in ("dec_slope", "win_bound", "joint_act")
]


@pytest.fixture(autouse=True)
def default_floats():
    """Runs a test with 64-bit types disabled, as JAX does by default."""
    with jax.enable_x64(False):
        yield


def test_every_fault_marks_a_line():
    assert len(FAULTS) == len({fault for _, fault in FAULTS}) >= 180
    assert all(places(pair, fault) for pair, fault in FAULTS)


@pytest.mark.parametrize(
    "pair",
    exhaustive_but(PAIRS, PAIRS[0]),
    ids=[pair.name for pair in PAIRS],
)
def test_pairs_without_a_fault_agree(pair):
    found = run(pair)
    assert found.ok and not found.origins


@pytest.mark.parametrize(
    "case",
    exhaustive_but(EXAMPLES, EXAMPLES[0]),
    ids=[fault for _, fault in EXAMPLES],
)
def test_planted_fault_is_the_first_origin(case):
    pair, fault = case
    finding = find(pair, fault)
    assert finding.found and 0 in (finding.line, finding.function)


@pytest.mark.exhaustive
@pytest.mark.parametrize("pair", PAIRS, ids=[pair.name for pair in PAIRS])
def test_pairs_agree_in_their_own_dtypes(pair):
    for seed in range(3):
        found = run(pair, seed=seed, dtype=None)
        assert found.ok and not found.origins
