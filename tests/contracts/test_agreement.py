"""`relative_error` finds every kind of error, and `assert_close` raises."""

import jax.numpy as jnp
import numpy as np
import pytest

from common.agreement import (
    EPS,
    TOLERANCES,
    assert_close,
    magnitude,
    relative_error,
    relative_errors,
    tolerance,
)

ONE = np.array([1.0, 2.0, -4.0])


def test_error_is_relative_to_the_largest_magnitude():
    assert relative_error(ONE, ONE) == 0
    assert relative_error(ONE + [0, 0, 1e-3], ONE) == pytest.approx(1e-3 / 4)
    assert relative_error(
        ONE * 1e6, (ONE + [1e-3, 0, 0]) * 1e6
    ) == pytest.approx(1e-3 / 4)
    assert relative_error(ONE + [1, 0, 0], ONE, scale=100.0) == pytest.approx(
        0.01
    )


@pytest.mark.parametrize(
    "other",
    [
        ONE.astype(np.float32),
        ONE[:2],
        ONE[None],
        np.array([1.0, 2.0, np.nan]),
        np.array([1.0, 2.0, np.inf]),
    ],
    ids=["dtype", "shape", "rank", "nan", "inf"],
)
def test_error_of_a_different_kind_of_array_is_infinite(other):
    assert relative_error(ONE, other) == np.inf
    assert relative_error(other, ONE) == np.inf


def test_error_of_equal_nans_and_infinities_is_zero():
    special = np.array([np.nan, np.inf, -np.inf, 1.0])
    assert relative_error(special, special) == 0
    assert relative_error(special, special * [1, 1, -1, 1]) == np.inf


@pytest.mark.parametrize(
    ("left", "right"),
    [(np.int32(3), np.int32(4)), (np.True_, np.False_)],
    ids=["int", "bool"],
)
def test_values_that_are_not_floats_must_be_equal(left, right):
    assert relative_error(left, left) == 0
    assert relative_error(left, right) == np.inf


def test_error_of_zeros_and_of_empty_arrays():
    assert relative_error(np.zeros(3), ONE) == 1
    assert relative_error(np.zeros(3), np.zeros(3)) == 0
    assert relative_error(np.zeros(0), np.zeros(0)) == 0


def test_error_of_an_array_that_one_side_lacks_is_infinite():
    assert relative_errors({"a": ONE}, {"a": ONE, "b": ONE}) == {
        "a": 0,
        "b": np.inf,
    }


def test_magnitude_ignores_nans_and_infinities():
    assert magnitude(np.array([1.0, -3.0, np.nan, np.inf])) == 3
    assert magnitude(np.zeros(0)) == 0


@pytest.mark.parametrize("quantity", TOLERANCES["float64"])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_assert_close_accepts_errors_up_to_its_tolerance(dtype, quantity):
    bound = tolerance(dtype, quantity)
    held = dtype.partition("/")[0]  # in mixed precision, arrays are float32
    x = np.array([1.0, 0.5], held)
    inside = x - np.array([0, bound / 2], held)
    outside = x - np.array([0, 2 * bound + 2 * EPS[held]], held)
    assert_close(inside, x, dtype=dtype, quantity=quantity)
    message = f"weight.*{quantity}.*with an error of"
    with pytest.raises(AssertionError, match=message):
        assert_close(outside, x, dtype=dtype, quantity=quantity, what="weight")


def test_assert_close_lists_every_mismatch():
    left = {"a": jnp.ones(2), "b": jnp.ones(2), "c": jnp.ones(2)}
    right = {**left, "a": jnp.zeros(2), "c": jnp.ones(3)}
    with pytest.raises(AssertionError) as caught:
        assert_close(left, right, dtype="float64", quantity="forward")
    assert "['a']" in str(caught.value)
    assert "['b']" not in str(caught.value)
    assert "['c']" in str(caught.value)


def test_assert_close_checks_the_structure():
    with pytest.raises(AssertionError, match="got the tree .* expected"):
        assert_close({"a": ONE}, {}, dtype="float64", quantity="forward")


def test_state_has_no_tolerance_in_any_dtype():
    assert {column["state"] for column in TOLERANCES.values()} == {0.0}
