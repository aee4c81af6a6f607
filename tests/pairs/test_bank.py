"""The true mappings are right, and every planted fault has an effect."""

import pytest

from common.agreement import tolerance
from common.native import NativeModel
from tests.conftest import exhaustive_but, one_in
from tests.pairs.bank import Fault, Pair, held_out, pairs
from tests.pairs.verification import errors, is_float

PAIRS = pairs() + held_out()
FAULTS = [(pair, fault) for pair in PAIRS for fault in pair.faults]


def bound(pair: Pair, name: str) -> float:
    kind = "gradients" if name.startswith("gradient") else "forward"
    return tolerance(pair.ceiling, kind)


def failures(pair: Pair, training: bool, fault: Fault | None = None):
    found = errors(
        pair.models(fault),
        pair.layouts(),
        pair.batches(),
        training=training,
        constants=pair.left_only,
    )
    return {k: e for k, e in found.items() if not e <= bound(pair, k)}


@pytest.mark.parametrize(
    "pair", exhaustive_but(PAIRS, *PAIRS[1::16]), ids=lambda pair: pair.name
)
def test_the_true_mapping_is_right(pair):
    assert failures(pair, False) == {}


@pytest.mark.parametrize(
    "pair",
    one_in(3, [pair for pair in PAIRS if pair.updates]),
    ids=lambda pair: pair.name,
)
def test_the_true_mapping_is_right_in_training(pair):
    assert failures(pair, True) == {}


@pytest.mark.parametrize("pair", one_in(12, PAIRS), ids=lambda pair: pair.name)
def test_every_array_is_mapped_or_named(pair):
    layouts = pair.layouts()
    right = NativeModel(pair.right()).infos
    assert layouts.keys() <= right.keys()
    for name, layout in layouts.items():
        assert layout.shape == right[name].value.shape, name
    used = {s.name for x in layouts.values() for s in x.sources}
    for infos, mapped, alone in (
        (NativeModel(pair.left()).infos, used, pair.left_only),
        (right, layouts.keys(), pair.right_only),
    ):
        floats = {n for n, info in infos.items() if is_float(info.value)}
        assert floats - mapped == set(alone)
    assert set(pair.free) <= layouts.keys()


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_a_pair_has_three_faults(pair):
    assert len(pair.faults) >= 3
    assert len({fault.name for fault in pair.faults}) == len(pair.faults)


@pytest.mark.parametrize(
    "case",
    exhaustive_but(FAULTS, *FAULTS[::80]),
    ids=lambda case: f"{case[0].name}-{case[1].name}",
)
def test_a_fault_has_an_effect(case):
    pair, fault = case
    assert failures(pair, fault.training, fault)
    if fault.training:
        assert not failures(pair, False, fault)
