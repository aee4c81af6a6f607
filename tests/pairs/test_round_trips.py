"""Random architectures are aligned and ported, and no mapping is wrong."""

from typing import Any

import hypothesis
import numpy as np
import pytest

from common.agreement import tolerance
from common.alignment import Alignment, AlignmentError, align
from common.native import NativeModel
from common.porting import Plan, port
from tests.conftest import many_draws
from tests.pairs.architectures import architectures, broken_architectures
from tests.pairs.bank import Pair
from tests.pairs.verification import errors, random_arrays


def aligned(pair: Pair, left: Any, right: Any) -> Alignment | None:
    left_call, right_call = pair.calls()
    try:
        return align(
            left,
            right,
            pair.inputs(),
            left_call=left_call,
            right_call=right_call,
            progress=False,
        )
    except AlignmentError:
        return None


def is_true(pair: Pair, found: Alignment, left: NativeModel) -> bool:
    """Tells whether each element of each array is where it should be."""
    labels, start = {}, 0
    for name, info in left.infos.items():
        size = info.value.size
        labels[name] = np.arange(start, start + size).reshape(info.value.shape)
        start += size
    truth = pair.layouts(left)
    return found.layouts.keys() == truth.keys() and all(
        np.array_equal(layout.apply(labels), truth[name].apply(labels))
        for name, layout in found.layouts.items()
    )


def wrong(pair: Pair, found: Alignment) -> dict[str, float]:
    """Returns the errors with weights that `align` did not see."""
    constants = found.constants[0]
    measured = errors(
        pair.models(),
        found.layouts,
        pair.batches(),
        constants=constants,
        seed=7,
    )
    bound = tolerance("float64", "gradients")
    return {name: e for name, e in measured.items() if not e <= bound}


def check_round_trip(pair: Pair) -> None:
    left, right = pair.left(), pair.right()
    found = aligned(pair, left, right)
    assert found is not None and found.proved, pair.name
    first = NativeModel(left)
    if not is_true(pair, found, first):
        # Where either of two arrays is right, the models are run once more.
        assert wrong(pair, found) == {}, pair.name
    left = first.with_arrays(random_arrays(first))
    source, target = found.source, found.target
    used = {
        s.name for layout in found.layouts.values() for s in layout.sources
    }
    plan = Plan(
        found.layouts,
        source,
        target,
        ignored=tuple(source.keys() - used),
        kept=tuple(target.keys() - found.layouts.keys()),
    )
    right = port(left, right, rules=plan, dtype="source")
    back = port(right, left, rules=plan.inverse(), dtype="source")
    want, got = first.read(left), first.read(back)
    for name in used:
        assert (np.asarray(want[name]) == np.asarray(got[name])).all(), (
            pair.name,
            name,
        )


def check_no_wrong_map(pair: Pair) -> None:
    found = aligned(pair, pair.left(), pair.right())
    # A fault may leave the models the same function under another mapping.
    if found is not None and found.proved:
        assert wrong(pair, found) == {}, pair.name


@hypothesis.settings(max_examples=1)
@hypothesis.given(architectures())
def test_a_few_architectures_make_the_round_trip(pair):
    check_round_trip(pair)


@pytest.mark.exhaustive
@hypothesis.settings(max_examples=many_draws(7))
@hypothesis.given(architectures())
def test_architectures_make_the_round_trip(pair):
    check_round_trip(pair)


@hypothesis.settings(max_examples=1)
@hypothesis.given(broken_architectures())
def test_a_few_faults_are_never_mapped_wrongly(pair):
    check_no_wrong_map(pair)


@pytest.mark.exhaustive
@hypothesis.settings(max_examples=many_draws(3))
@hypothesis.given(broken_architectures())
def test_faults_are_never_mapped_wrongly(pair):
    check_no_wrong_map(pair)
