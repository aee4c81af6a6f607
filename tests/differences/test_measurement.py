"""`measure` and its verdicts."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.differences import Measurement, measure


def test_recorded_number_is_still_there(row):
    assert Measurement(row, row.measured).verdict == "still there"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_number_that_is_not_finite_is_a_change(row, value):
    planted = dataclasses.replace(row, demonstration=lambda: value)
    assert measure(planted).verdict == "changed"


def test_half_of_a_difference_is_a_change(row):
    half = (row.measured + row.expected) / 2
    assert Measurement(row, half).verdict == "changed"


def test_error_in_a_demonstration_is_not_hidden(row):
    def broken():
        raise AttributeError("renamed upstream")

    planted = dataclasses.replace(row, demonstration=broken)
    with pytest.raises(AttributeError, match="renamed upstream"):
        measure(planted)


@pytest.mark.parametrize(
    "value", [None, 1, jnp.ones(()), np.ones(()), "1.0"], ids=repr
)
def test_demonstration_that_returns_no_float_is_an_error(row, value):
    def no_float():
        return value

    planted = dataclasses.replace(row, demonstration=no_float)
    message = rf"\.no_float: got {type(value).__name__}, expected float"
    with pytest.raises(TypeError, match=message):
        measure(planted)


def test_measuring_disables_x64_and_restores_it(row):
    def itemsize():
        return float(jnp.ones(()).itemsize)

    planted = dataclasses.replace(row, demonstration=itemsize)
    with jax.enable_x64(True):
        assert measure(planted).value == 4.0
        assert jnp.ones(()).itemsize == 8
