"""Random architectures are aligned and ported, and no mapping is wrong."""

import hypothesis
import pytest

from common.agreement import tolerance
from common.alignment import Alignment, AlignmentError, align
from common.native import NativeModel
from common.porting import ArrayInfo, Plan, port
from tests.conftest import many_draws
from tests.pairs.architectures import architectures, broken_architectures
from tests.pairs.bank import Pair
from tests.pairs.verification import errors, random_arrays


def aligned(pair: Pair) -> Alignment | None:
    left_call, right_call = pair.calls()
    try:
        return align(
            pair.left(),
            pair.right(),
            pair.inputs(),
            left_call=left_call,
            right_call=right_call,
            progress=False,
        )
    except AlignmentError:
        return None


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
    found = aligned(pair)
    assert found is not None and found.proved, pair.name
    assert wrong(pair, found) == {}, pair.name
    first = NativeModel(pair.left())
    left = first.with_arrays(random_arrays(first))
    source, target = (
        {n: ArrayInfo.of(x.value, x.role) for n, x in model.infos.items()}
        for model in (first, NativeModel(pair.right()))
    )
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
    right = port(left, pair.right(), rules=plan, dtype="source")
    back = port(right, pair.left(), rules=plan.inverse(), dtype="source")
    want, got = NativeModel(left).arrays(), NativeModel(back).arrays()
    for name in used:
        assert (want[name] == got[name]).all(), (pair.name, name)


def check_no_wrong_map(pair: Pair) -> None:
    found = aligned(pair)
    # A fault may leave the models the same function under another mapping.
    if found is not None and found.proved:
        assert wrong(pair, found) == {}, pair.name


@hypothesis.settings(max_examples=1)
@hypothesis.given(architectures())
def test_a_few_architectures_make_the_round_trip(pair):
    check_round_trip(pair)


@pytest.mark.exhaustive
@hypothesis.settings(max_examples=many_draws(2))
@hypothesis.given(architectures())
def test_architectures_make_the_round_trip(pair):
    check_round_trip(pair)


@hypothesis.settings(max_examples=1)
@hypothesis.given(broken_architectures())
def test_a_few_faults_are_never_mapped_wrongly(pair):
    check_no_wrong_map(pair)


@pytest.mark.exhaustive
@hypothesis.settings(max_examples=many_draws(1))
@hypothesis.given(broken_architectures())
def test_faults_are_never_mapped_wrongly(pair):
    check_no_wrong_map(pair)
