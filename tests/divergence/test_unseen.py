"""`diff` on faults in styles of code that it was not built on."""

import jax
import pytest

from tests.conftest import bound_memory
from tests.divergence.mutations.figures import find, run
from tests.divergence.mutations.pair import places
from tests.divergence.unseen import FAULTS, HELD_OUT, PAIRS, USED

QUICK = [USED[0], USED[13], USED[33]]
NAMES = [pair.name for pair in PAIRS]


@pytest.fixture(autouse=True)
def default_floats():
    """Runs a test with 64-bit types disabled, as JAX does by default."""
    with jax.enable_x64(False):
        yield


def test_the_bank_has_sixty_faults_and_a_third_is_held_out():
    assert len(FAULTS) >= 60
    assert 3 * len(HELD_OUT) >= len(FAULTS) - 2
    assert all(places(pair, fault) for pair, fault in FAULTS)


@pytest.mark.parametrize("pair", PAIRS, ids=NAMES)
def test_pairs_without_a_fault_agree(pair):
    assert run(pair, seed=1).ok


@pytest.mark.parametrize(
    ("pair", "fault"), QUICK, ids=[fault for _, fault in QUICK]
)
def test_planted_fault_is_the_first_origin(pair, fault):
    finding = find(pair, fault)
    assert finding.found and 0 in (finding.line, finding.function)


def count_first(faults):
    """The number of faults that are found, and that are named first."""
    findings = [find(pair, fault) for pair, fault in faults]
    bound_memory()
    first = [one for one in findings if 0 in (one.line, one.function)]
    missed = [one.fault for one in findings if one not in first]
    return sum(one.found for one in findings), len(first), missed


@pytest.mark.exhaustive
@pytest.mark.nightly
@pytest.mark.parametrize(
    ("faults", "share"),
    [(USED, 0.95), (HELD_OUT, 0.9)],
    ids=["used", "held out"],
)
def test_share_of_first_origins(faults, share, capsys):
    found, first, missed = count_first(faults)
    with capsys.disabled():
        print(f"\n{first} of {len(faults)} first origins; not {missed}")
    assert found == len(faults)
    assert first >= share * len(faults)
