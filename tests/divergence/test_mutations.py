"""`diff` on a bank of planted faults: all found, named, no false alarm."""

import json
import pathlib

import pytest

from tests.divergence.mutations import FAULTS
from tests.divergence.mutations.figures import alarms, find, summary
from tests.divergence.mutations.pair import places

pytestmark = pytest.mark.usefixtures("forgets")

STORED = pathlib.Path(__file__).parents[2] / "docs/data/mutations.json"
"""What the documentation shows."""
FINDINGS = {}
NAMED = 0.95
"""The least share of faults whose line or layer must be named."""


def test_the_bank_is_large_and_half_of_it_rewritten():
    rewritten = [fault for pair, fault in FAULTS if pair.rewritten]
    assert len(FAULTS) >= 64
    assert 2 * len(rewritten) >= len(FAULTS)
    assert len({fault for _, fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize(
    ("pair", "fault"), FAULTS, ids=[fault for _, fault in FAULTS]
)
def test_a_planted_fault_is_found(pair, fault):
    assert places(pair, fault), "no line is marked with it"
    FINDINGS[fault] = find(pair, fault)
    assert FINDINGS[fault].found


def test_faults_are_named_and_nothing_else_is(capsys):
    for pair, fault in FAULTS:
        if fault not in FINDINGS:
            FINDINGS[fault] = find(pair, fault)
    wolves = alarms()
    figures = summary(list(FINDINGS.values()), wolves)
    with capsys.disabled():
        print(f"\nmutations: {json.dumps(figures)}")
    assert not wolves
    assert figures["named"] >= NAMED
    stored = json.loads(STORED.read_text())
    assert figures == stored, (
        "run `python -m tests.divergence.mutations`, see its help"
    )
