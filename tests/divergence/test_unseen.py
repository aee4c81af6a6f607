"""`diff` on faults in styles of code that it was not built on."""

import json
import pathlib

import jax
import pytest

from tests.conftest import bound_memory, one_in
from tests.divergence.mutations.figures import find, run
from tests.divergence.mutations.pair import places
from tests.divergence.unseen import (
    FAULTS,
    HELD_OUT,
    NO_FAULT,
    PAIRS,
    USED,
)
from tests.divergence.unseen.figures import BANKS, count

EXAMPLES = [
    one for one in USED if one[1] in ("gqa_eps", "moe_temperature", "mix_gelu")
]
STORED = pathlib.Path(__file__).parents[2] / "docs/data/unseen.json"


@pytest.fixture(autouse=True)
def default_floats():
    """Runs a test with 64-bit types disabled, as JAX does by default."""
    with jax.enable_x64(False):
        yield


def test_the_bank_has_sixty_faults_and_a_third_is_held_out():
    assert len(FAULTS) >= 60
    assert 3 * len(HELD_OUT) >= len(FAULTS) - 2
    assert run(PAIRS[0], NO_FAULT).ok
    assert all(places(pair, fault) for pair, fault in FAULTS)


@pytest.mark.parametrize("pair", one_in(4, PAIRS), ids=lambda pair: pair.name)
def test_pairs_without_a_fault_agree(pair):
    assert run(pair, seed=1).ok


@pytest.mark.parametrize("case", one_in(3, EXAMPLES), ids=lambda case: case[1])
def test_planted_fault_is_the_first_origin(case):
    finding = find(*case)
    assert finding.found and 0 in (finding.line, finding.function)


@pytest.mark.exhaustive
@pytest.mark.parametrize("bank", BANKS)
def test_the_documented_figures(bank):
    found = count(BANKS[bank], bound_memory)
    stored = json.loads(STORED.read_text())[bank]
    assert found == stored, (
        "run `python -m tests.divergence.unseen docs/data/unseen.json`"
    )
