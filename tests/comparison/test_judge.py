"""What counts as a mismatch, and which one is the first."""

import numpy as np
import pytest

from common.agreement import AMPLIFIED, tolerance
from common.comparison.judge import Judge
from common.state import State

PAIR = ("a", "b")
BOUND = tolerance("float64", "forward")
X = np.array([1.0, -2.0])


def judge(**options):
    return Judge("float64", [PAIR], **options)


def only_row(found):
    (row,) = found.rows()
    return row


def state(step=0, params=X, buffers=X, opt=X):
    return State(
        params={"w": params},
        buffers={"mean": buffers},
        opt={"mu.w": opt},
        rng={},
        step=step,
    )


def test_an_error_above_the_tolerance_is_a_mismatch():
    for factor, ok in ((0.4, True), (2.0, False)):
        found = judge()
        other = {"y": X * (1 + factor * BOUND)}
        found.values("forward", 0, {"a": {"y": X}, "b": other})
        row = only_row(found)
        assert row.ok is ok
        assert 0.9 < row.worst.error / (factor * BOUND) < 1.1


@pytest.mark.parametrize(
    "other", [{}, {"z": X}, {"y": X[:1]}, {"y": X.astype("float32")}]
)
def test_arrays_that_cannot_be_compared_are_a_mismatch(other):
    found = judge()
    found.values("forward", 0, {"a": {"y": X}, "b": other})
    assert only_row(found).worst.error == np.inf


def noisy(error, noise, **options):
    """Judges an error beside what one rounding error leads to."""
    found = judge(nudged="n", **options)
    arrays = {
        "a": {"y": X, "z": X},
        "b": {"y": X * (1 + error), "z": X},
        "n": {"y": X * (1 + noise), "z": X * (1 + 1e-6)},
    }
    found.values("forward", 0, arrays)
    return only_row(found)


def test_rounding_explains_errors_of_its_size_only():
    assert noisy(0.9 * AMPLIFIED * 1e-9, 1e-9).ok
    assert not noisy(1.1 * AMPLIFIED * 1e-9, 1e-9).ok
    # Nor does the rounding of another array, unless they are pooled.
    assert not noisy(1e-6, 0.0).ok
    assert noisy(1e-6, 0.0, pooled=True).ok
    assert not noisy(AMPLIFIED * 1.1e-6, 0.0, pooled=True).ok
    assert not noisy(1e-9, np.nan).ok
    assert not noisy(1e-9, np.inf).ok


def test_a_loss_that_is_not_finite_is_a_mismatch():
    for bad in (np.nan, np.inf):
        found = judge()
        found.losses(1, {"a": np.float64(1), "b": np.float64(1)})
        found.losses(2, {"a": np.float64(bad), "b": np.float64(bad)})
        loss, trajectory = found.rows()
        assert loss.quantity == "loss" and loss.ok
        assert trajectory.first is not None and trajectory.first.step == 2


def test_the_first_mismatch_stays_and_the_worst_is_the_largest():
    found = judge()
    for step, error in ((1, 0.0), (2, 1e-3), (3, 1e-1), (4, 1e-2)):
        losses = {"a": np.float64(1), "b": np.float64(1 + error)}
        found.losses(step, losses)
    row = found.rows()[-1]
    assert row.first is not None
    assert (row.first.step, row.worst.step) == (2, 3)


def test_moments_are_relative_to_the_largest_they_had():
    """Gradients become small, but their rounding errors do not."""
    tiny = 1e-12
    for history in (True, False):
        found = judge()
        if history:
            found.state(1, {"a": state(), "b": state()})
        small = state(opt=tiny * X), state(opt=tiny * X * 1.5)
        found.state(2, dict(zip(PAIR, small, strict=True)))
        (row,) = [r for r in found.rows() if r.quantity == "moments"]
        assert row.ok is history


def stale(step, start, changed):
    found = judge()
    before = {name: state(start) for name in PAIR}
    found.stale(step, before, dict(zip(PAIR, changed, strict=True)))
    row = only_row(found)
    return row.worst.error, row.worst.leaf


def test_buffers_that_training_did_not_change_are_counted():
    both, none = ({"mean"}, {"mean"}), (set(), set())
    assert stale(2, 0, both) == (0, "")
    assert stale(2, 0, none) == (2, "a.mean")
    # One step need not change every buffer, but it does on both sides.
    assert stale(1, 0, none) == (0, "")
    assert stale(1, 0, ({"mean"}, set())) == (1, "b.mean")
    # A buffer that has converged stays as it is.
    assert stale(5, 9, none) == (0, "")


def test_arrays_that_inference_changed_are_counted():
    found = judge()
    found.overwritten(3, {"a": [], "b": ["mean", "var"]})
    row = only_row(found)
    assert not row.ok
    assert (row.worst.error, row.worst.leaf) == (2, "b.mean")


def test_copies_and_starts_must_be_equal():
    other = state(params=X + 1e-15)
    for copies, originals, leaf in (
        ((state(), state()), (state(), state()), None),
        ((state(), state()), (state(), other), "params.w"),
        ((state(), other), (state(), state()), "params.w"),
    ):
        found = judge()
        found.handed_over(
            dict(zip(PAIR, copies, strict=True)),
            dict(zip(PAIR, originals, strict=True)),
        )
        first = only_row(found).first
        assert (first and first.leaf) == leaf


def test_rows_are_in_the_order_of_proof():
    found = judge()
    found.overwritten(1, {"a": [], "b": []})
    found.state(1, dict.fromkeys(PAIR, state()))
    found.first_step(dict.fromkeys(PAIR, state()))
    found.values("forward", 0, dict.fromkeys(PAIR, {"y": X}))
    assert [row.quantity for row in found.rows()] == [
        *("forward", "buffers", "update", "parameters", "moments"),
        "overwritten",
    ]
