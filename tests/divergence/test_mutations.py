"""`diff` on a bank of planted faults: all found, named, no false alarm.

Without the marker `exhaustive` the tests plant the first fault of every pair,
and draw every unmutated pair once.
"""

import json
import pathlib

import pytest

from tests.divergence.mutations import FAULTS, PAIRS
from tests.divergence.mutations.figures import (
    Finding,
    find,
    find_false_alarms,
    summarize,
)
from tests.divergence.mutations.pair import Pair, places

STORED = pathlib.Path(__file__).parents[2] / "docs/data/mutations.json"
"""The figures that the documentation shows."""
FINDINGS: dict[str, Finding] = {}
MIN_NAMED = 0.95
"""The smallest share of faults whose line or function must be named."""
SAMPLE = [(pair, pair.faults[0]) for pair in PAIRS]
REST = [item for item in FAULTS if item not in SAMPLE]


def check_fault(pair: Pair, fault: str) -> None:
    assert places(pair, fault), "no line is marked with the fault"
    FINDINGS[fault] = find(pair, fault)
    assert FINDINGS[fault].found


def test_bank_is_large_and_half_of_it_is_rewritten():
    rewritten = [fault for pair, fault in FAULTS if pair.rewritten]
    assert len(FAULTS) >= 64
    assert 2 * len(rewritten) >= len(FAULTS)
    assert len({fault for _, fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize(
    ("pair", "fault"), SAMPLE, ids=[fault for _, fault in SAMPLE]
)
def test_planted_fault_is_found(pair, fault):
    check_fault(pair, fault)


def test_faults_of_the_sample_are_named():
    for pair, fault in SAMPLE:
        if fault not in FINDINGS:
            FINDINGS[fault] = find(pair, fault)
    figures = summarize([FINDINGS[fault] for _, fault in SAMPLE], [])
    assert figures["found"] == len(SAMPLE)
    assert figures["named"] >= MIN_NAMED


def test_unmutated_pairs_agree():
    assert not find_false_alarms(len(PAIRS))


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("pair", "fault"), REST, ids=[fault for _, fault in REST]
)
def test_every_planted_fault_is_found(pair, fault):
    check_fault(pair, fault)


@pytest.mark.exhaustive
def test_figures_are_those_of_the_documentation(capsys):
    for pair, fault in FAULTS:
        if fault not in FINDINGS:
            FINDINGS[fault] = find(pair, fault)
    findings = [FINDINGS[fault] for _, fault in FAULTS]
    figures = summarize(findings, find_false_alarms())
    with capsys.disabled():
        print(f"\nmutations: {json.dumps(figures)}")
    assert not figures["false alarms"]
    assert figures["named"] >= MIN_NAMED
    assert figures == json.loads(STORED.read_text()), (
        "run `python -m tests.divergence.mutations docs/data/mutations.json`"
    )
