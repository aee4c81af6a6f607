"""Bad hyper-parameters, and the checks that specs make of them."""

import inspect
import re
import subprocess
import sys

import numpy as np
import pytest

from common.errors import HyperParameterError
from common.models import checks
from common.training.building import build

HYPER_PARAMETERS = {
    "hyper_parameter": (
        {"backend": "flax", "width": 3},
        HyperParameterError,
        r"stateful_mlp hyper-parameter: got 'width', expected one of "
        r"'in_size', 'hidden_size', 'out_size', 'batch_norm', 'momentum', "
        r"'eps'\. [A-Z].+\.",
    ),
    "size": (
        {"backend": "flax", "hidden_size": 0},
        ValueError,
        r"stateful_mlp hidden_size: got 0, expected a positive value\. "
        r"[A-Z].+\.",
    ),
    "sizes": (
        {"spec": "digits_cnn", "backend": "flax", "channels": (4, -1)},
        ValueError,
        r"digits_cnn channels: got \(4, -1\), expected a positive value\. "
        r"[A-Z].+\.",
    ),
    "momentum": (
        {"backend": "flax", "momentum": 1.0},
        ValueError,
        r"stateful_mlp momentum: got 1\.0, expected a value in \[0, 1\)\. "
        r"[A-Z].+\.",
    ),
    "dropout": (
        {"spec": "digits_cnn", "backend": "flax", "dropout": -0.1},
        ValueError,
        r"digits_cnn dropout: got -0\.1, expected a value in \[0, 1\)\. "
        r"[A-Z].+\.",
    ),
}


@pytest.mark.parametrize("fault", HYPER_PARAMETERS)
def test_bad_hyper_parameters(fault, assert_raises):
    arguments, error, message = HYPER_PARAMETERS[fault]
    assert_raises(lambda: build(**arguments), error, message)


class Sizes:
    """Takes the place of a spec, with a field of any type."""

    name = "sizes"

    def __init__(self, size):
        self.size = size


NOT_INTS = ["32", 3.5, True, np.int64(3), None, (3,)]
NOT_TUPLES = [16, "ab", [1, 2], (1.0, 2), (16,), (1, 2, 3)]
NOT_NUMBERS = ["0.9", None, [0.5]]


@pytest.mark.parametrize("value", NOT_INTS)
def test_an_int_is_required(value, assert_raises):
    assert_raises(
        lambda: untyped(checks.require_int)(Sizes(value), "size"),
        ValueError,
        rf"sizes size: got {re.escape(repr(value))}, expected an int\. Pass "
        r"one such as 8, without a decimal point or quotes\.",
    )


@pytest.mark.parametrize("value", NOT_TUPLES)
def test_a_tuple_of_ints_is_required(value, assert_raises):
    assert_raises(
        lambda: untyped(checks.require_ints)(Sizes(value), "size", length=2),
        ValueError,
        rf"sizes size: got {re.escape(repr(value))}, expected a tuple of 2 "
        r"ints\. Write it as in \w+=\(8, 16\)\.",
    )


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_a_number_in_a_range_is_required(value, assert_raises):
    assert_raises(
        lambda: untyped(checks.require_within)(Sizes(value), "size", 0, 1),
        ValueError,
        rf"sizes size: got {re.escape(repr(value))}, expected a value in "
        r"\[0, 1\)\. [A-Z].+\.",
    )


def test_a_positive_number_is_required(assert_raises):
    assert_raises(
        lambda: untyped(checks.require_positive)(Sizes("1"), "size"),
        ValueError,
        r"sizes size: got '1', expected a positive value\. [A-Z].+\.",
    )


def test_good_values_pass():
    untyped(checks.require_int)(Sizes(3), "size")
    untyped(checks.require_ints)(Sizes((1, 2, 3)), "size")


def untyped(function):
    """Returns a function without its type checker."""
    return inspect.unwrap(function)


UNTYPED = """
from common.training.building import build
from flax import nnx
from impl_flax.layers import BatchNorm

for call in (
    lambda: build(backend="flax", batch_norm="layer"),
    lambda: BatchNorm(3, mode="standard", rngs=nnx.Rngs(0)),
):
    try:
        call()
    except ValueError as error:
        print(error)
"""


def test_messages_without_a_type_checker():
    done = subprocess.run(
        [sys.executable, "-c", UNTYPED],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first.startswith(
        "stateful_mlp batch_norm: got 'layer', expected one of 'ema', "
        "'batch', 'standard', 'torch'. "
    )
    assert second.startswith(
        "BatchNorm mode: got 'standard', expected 'ema', 'batch' or 'torch'. "
    )
