"""The pairs are aligned, ported, compared, and their faults are located.

The held-out pairs are left out here, so that nothing is tuned on them.
"""

import functools
from typing import Any

import numpy as np
import pytest

from common import compare
from common.alignment import Alignment, AlignmentError, align
from common.native import NativeModel
from common.porting import ArrayInfo, Plan, port
from tests.conftest import exhaustive_but, one_in
from tests.pairs.bank import Pair, pairs
from tests.pairs.locating import is_named
from tests.pairs.negatives import NEGATIVES
from tests.pairs.verification import (
    carry,
    floats_of,
    is_float,
    random_arrays,
)

BY_NAME = {pair.name: pair for pair in pairs()}
QUICK = "layers counted from 1 and from 0"
QUICK_FAULT = (QUICK, "another activation")
FAULTS = [(n, fault.name) for n, p in BY_NAME.items() for fault in p.faults]
STEPS = 50

each_fault = pytest.mark.parametrize(
    "case", exhaustive_but(FAULTS, QUICK_FAULT)
)
each_pair = pytest.mark.parametrize(
    "pair_name", exhaustive_but(BY_NAME, QUICK)
)


@functools.cache
def alignment(name: str) -> Alignment:
    pair = BY_NAME[name]
    return align(
        pair.left(),
        pair.right(),
        pair.inputs(),
        left_call=pair.calls()[0],
        right_call=pair.calls()[1],
        progress=False,
    )


def filled(pair: Pair) -> Any:
    """Returns the left model with random weights.

    They are in float64, unless a layer of the pair casts to the dtype that
    it was made for. Such a pair is a pair of models of that dtype.
    """
    left = NativeModel(pair.left())
    own = left.arrays()
    kept = (*pair.left_only, *sources_of_constants(pair))
    drawn = {
        name: x.astype(pair.ceiling) if is_float(x) else x
        for name, x in random_arrays(left).items()
    }
    return left.with_arrays(drawn | {name: own[name] for name in kept})


def sources_of_constants(pair: Pair) -> set[str]:
    layouts = pair.layouts()
    return {s.name for n in pair.constants for s in layouts[n].sources}


def plan_of(name: str) -> Plan:
    """Returns the plan of an alignment."""
    pair, layouts = BY_NAME[name], alignment(name).layouts
    source, target = (
        {n: ArrayInfo.of(x.value, x.role) for n, x in infos.items()}
        for infos in (
            NativeModel(pair.left()).infos,
            NativeModel(pair.right()).infos,
        )
    )
    used = {s.name for layout in layouts.values() for s in layout.sources}
    return Plan(
        layouts,
        source,
        target,
        ignored=tuple(source.keys() - used),
        kept=tuple(target.keys() - layouts.keys()),
    )


@each_pair
def test_align_finds_the_true_mapping(pair_name):
    pair, found = BY_NAME[pair_name], alignment(pair_name)
    assert found.proved
    start, labels = 0, {}
    for n, info in NativeModel(pair.left()).infos.items():
        shape = info.value.shape
        size = int(np.prod(shape))
        labels[n] = np.arange(start, start + size).reshape(shape)
        start += size
    truth = pair.layouts()
    assert found.layouts.keys() <= truth.keys()
    missing = truth.keys() - found.layouts.keys()
    assert missing <= {*pair.free, *pair.constants}
    for n, layout in found.layouts.items():
        if n not in pair.free:
            got, want = layout.apply(labels), truth[n].apply(labels)
            assert np.array_equal(got, want), n


@pytest.mark.parametrize("pair_name", exhaustive_but(BY_NAME, QUICK))
def test_a_ported_pair_is_equal_after_fifty_steps(pair_name):
    pair, plan = BY_NAME[pair_name], plan_of(pair_name)
    left = filled(pair)
    right = port(left, pair.right(), rules=plan, dtype="source")
    left_call, right_call = pair.calls()
    report = compare(
        left,
        right,
        pair.inputs(),
        left_call=left_call,
        right_call=right_call,
        rules=plan,
        steps=STEPS,
    )
    assert report.ok, str(report)


@each_pair
def test_port_leads_back(pair_name):
    pair, plan = BY_NAME[pair_name], plan_of(pair_name)
    left = filled(pair)
    right = port(left, pair.right(), rules=plan, dtype="source")
    back = port(right, pair.left(), rules=plan.inverse(), dtype="source")
    want, got = NativeModel(left).arrays(), NativeModel(back).arrays()
    for n in want.keys() - {*plan.ignored}:
        assert np.array_equal(got[n], want[n]), n


@each_pair
def test_rules_are_read_again(pair_name):
    plan = plan_of(pair_name)
    again = Plan.parse(plan.rules, plan.source, plan.target)
    assert again.layouts == plan.layouts


@each_fault
def test_a_fault_is_found_and_located(case):
    pair = BY_NAME[case[0]]
    (fault,) = (fault for fault in pair.faults if fault.name == case[1])
    arrays = NativeModel(filled(pair)).arrays()
    left, right = pair.models(fault)
    carried = floats_of(right.arrays()) | carry(pair.layouts(), arrays)
    left_call, right_call = pair.calls()
    report = compare(
        left.with_arrays(arrays),
        right.with_arrays(carried),
        pair.inputs(),
        left_call=left_call,
        right_call=right_call,
        rules=pair.layouts(),
        steps=1,
    )
    found = report.first_divergence
    assert not report.ok and found is not None
    assert is_named(fault, " ".join(found.lines)), str(report)


@each_fault
def test_align_never_proves_a_fault(case):
    pair = BY_NAME[case[0]]
    (fault,) = (fault for fault in pair.faults if fault.name == case[1])
    left, right = pair.models(fault)
    left_call, right_call = pair.calls()
    try:
        found = align(
            left.native,
            right.native,
            pair.inputs(),
            left_call=left_call,
            right_call=right_call,
            progress=False,
        )
    except AlignmentError:
        return
    if fault.training:
        # In training mode the models differ, and the alignment says so.
        assert found.training is not None and max(found.training) > 0
    else:
        assert fault.remapped or not found.proved


@pytest.mark.parametrize(
    "negative", one_in(4, NEGATIVES), ids=lambda x: x.name
)
def test_a_negative_is_refused_with_the_place(negative):
    with pytest.raises(AlignmentError) as caught:
        align(
            negative.left(),
            negative.right(),
            negative.inputs(),
            progress=False,
        )
    text = str(caught.value)
    assert "negatives.py" in text
    if negative.left_line:
        assert is_named(negative, text), text
