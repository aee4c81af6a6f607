"""`diff` on a bank of planted faults, and no false alarm.

Without the marker `exhaustive` the tests plant the first fault of every third
pair, and run five pairs without a fault.
"""

import json
import pathlib

import jax
import pytest

from tests.conftest import bound_memory
from tests.divergence.mutations import FAULTS, PAIRS
from tests.divergence.mutations.figures import (
    find,
    find_false_alarms,
    summarize,
)
from tests.divergence.mutations.pair import places

STORED = pathlib.Path(__file__).parents[2] / "docs/data/mutations.json"
"""The figures that the documentation shows."""
MIN_NAMED = 0.95
"""The smallest share of faults whose line or function must be named."""
SAMPLE = [(pair, pair.faults[0]) for pair in PAIRS[::6]]


def test_bank_is_large_and_half_of_it_is_rewritten():
    rewritten = [fault for pair, fault in FAULTS if pair.rewritten]
    assert len(FAULTS) >= 64
    assert 2 * len(rewritten) >= len(FAULTS)
    assert len({fault for _, fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize(
    ("pair", "fault"), SAMPLE, ids=[fault for _, fault in SAMPLE]
)
def test_planted_fault_is_found(pair, fault):
    assert find(pair, fault).found


@pytest.mark.parametrize(
    ("pair", "fault"), FAULTS, ids=[fault for _, fault in FAULTS]
)
def test_every_fault_marks_a_line(pair, fault):
    assert places(pair, fault)


def test_pairs_without_a_fault_agree():
    assert not find_false_alarms(5)


@pytest.mark.exhaustive
def test_figures_are_those_of_the_documentation(capsys):
    with jax.enable_x64(False):  # JAX's default
        findings = []
        for pair, fault in FAULTS:
            findings.append(find(pair, fault))
            bound_memory()
        alarms = find_false_alarms(after_each=bound_memory)
    figures = summarize(findings, alarms)
    with capsys.disabled():
        print(f"\nmutations: {json.dumps(figures)}")
    assert figures["found"] >= len(FAULTS) - 1
    assert not figures["false alarms"]
    assert figures["named"] >= MIN_NAMED
    assert figures == json.loads(STORED.read_text()), (
        "run `python -m tests.divergence.mutations docs/data/mutations.json`"
    )
