"""Functions and arguments that cannot be compared."""

import pytest

from common import diff
from tests.divergence.programs import (
    X,
    norm,
)


def test_outputs_of_other_structure():
    message = r"outputs: got the structure .* on the left and .* on the right"
    with pytest.raises(ValueError, match=message):
        diff(lambda x: x, lambda x: (x, x), X)


def test_a_function_that_does_not_trace():
    def branching(x):
        return x if x[0, 0] > 0 else -x

    message = "right function 'branching': got TracerBoolConversionError"
    with pytest.raises(TypeError, match=message):
        diff(norm, branching, X)


def test_inputs_of_another_shape():
    message = r"got TypeError .* Check the inputs' shapes \(float64\[3,4\]\)"
    with pytest.raises(TypeError, match=message):
        diff(norm, lambda x: x @ x, X)


def test_arguments_that_are_no_tuple():
    with pytest.raises(
        ValueError, match="right_args: got str, expected a tup"
    ):
        diff(norm, norm, X, right_args="x")
    with pytest.raises(ValueError, match="dtype: got 'float65', expected one"):
        diff(norm, norm, X, dtype="float65")
