"""Tests of the running statistics of batch norms."""

import dataclasses
from typing import Any

import equinox as eqx
import pytest

from common.native import NativeModel
from common.porting import plan_port, port
from tests.porting import pairs
from tests.porting.pairs import arrays, close


def test_convolutions_and_flatten_both_ways():
    source, target = pairs.cnn(), pairs.fill_flax(pairs.NnxCNN())
    options: Any = {"flatten": pairs.FLATTEN, "batch_norm": "serve"}
    assert port(source, target, **options) is target
    expected, _ = NativeModel(source).apply(arrays(source), pairs.IMAGES)
    got, _ = NativeModel(target).apply(arrays(target), pairs.IMAGES)
    assert close(expected, got)
    again = port(target, source, flatten=pairs.FLATTEN)
    got, _ = NativeModel(again).apply(arrays(again), pairs.IMAGES)
    assert close(expected, got)
    counter = again[1].get(again[0].norm.batch_counter)
    assert int(counter) == 2**30


def test_resume_continues_training():
    source, target = pairs.cnn(), pairs.fill_flax(pairs.NnxCNN())
    port(source, target, flatten=pairs.FLATTEN, batch_norm="resume")
    for images in (pairs.IMAGES, 2 * pairs.IMAGES + 1):
        ours = NativeModel(source)
        expected, _ = ours.apply(ours.arrays(), images, training=True)
        theirs = NativeModel(target)
        got, after = theirs.apply(theirs.arrays(), images, training=True)
        assert close(expected, got)
        target = theirs.with_arrays(after)


def test_batch_norm_needs_a_choice():
    with pytest.raises(
        ValueError,
        match=r"batch norm `norm` \(batch to standard\): got no `batch_norm`, "
        r"expected a choice,\s+because .* divides its statistics by 0.271",
    ):
        port(
            pairs.cnn(), pairs.fill_flax(pairs.NnxCNN()), flatten=pairs.FLATTEN
        )


def test_a_dialect_that_cannot_resume():
    target = eqx.nn.make_with_state(pairs.EqxCNN)("ema")
    source = pairs.fill_flax(pairs.NnxCNN())
    options: Any = {"flatten": pairs.FLATTEN}
    with pytest.raises(ValueError, match=r"'ema'\s+also normalizes by"):
        port(source, target, batch_norm="resume", **options)
    with pytest.raises(ValueError, match="got no `batch_norm`"):
        port(source, target, **options)
    model, state = port(source, target, batch_norm="serve", **options)
    assert not state.get(model.norm.ema_first_time_index)
    plan = plan_port(source, target, batch_norm="serve", **options)
    assert plan.derived
    found = dataclasses.replace(plan, derived={}, kept=tuple(plan.derived))
    model, state = port(source, target, rules=found, batch_norm="serve")
    assert not state.get(model.norm.ema_first_time_index)
    got, _ = NativeModel((model, state)).apply(
        arrays((model, state)), pairs.IMAGES
    )
    expected, _ = NativeModel(source).apply(arrays(source), pairs.IMAGES)
    assert close(expected, got)


@pytest.mark.parametrize("options", [{}, {"batch_norm": "serve"}], ids=str)
def test_a_plan_for_inference_divides_once(options):
    source, target = pairs.cnn(), pairs.fill_flax(pairs.NnxCNN())
    serve: Any = {"flatten": pairs.FLATTEN, "batch_norm": "serve"}
    plan = plan_port(source, target, **serve)
    for rules in (plan, plan.rules):
        port(source, target, rules=rules, **options)
        assert same_outputs(source, target)
        back = port(target, pairs.cnn(), rules=plan.inverse(), **options)
        assert same_outputs(back, target)
    # The factor is that of the source now, not that of the plan.
    model, state = source
    counter = state.get(model.norm.batch_counter)
    source = model, state.set(model.norm.batch_counter, counter + 2)
    port(source, target, rules=plan, **options)
    assert same_outputs(source, target)


def test_a_plan_for_inference_serves_training_if_asked_to():
    source, target = pairs.cnn(), pairs.fill_flax(pairs.NnxCNN())
    options: Any = {"flatten": pairs.FLATTEN}
    plan = plan_port(source, target, batch_norm="serve", **options)
    port(source, target, rules=plan, batch_norm="resume")
    model, state = source
    assert close(state.get(model.norm.batch_state_index)[0], target.norm.mean)


def same_outputs(left, right):
    expected, got = (
        NativeModel(x).apply(arrays(x), pairs.IMAGES)[0] for x in (left, right)
    )
    return close(expected, got)


def test_wrong_batch_norm():
    with pytest.raises(ValueError, match="batch_norm: got 'train', expected"):
        port(pairs.cnn(), pairs.cnn(), batch_norm="train")
