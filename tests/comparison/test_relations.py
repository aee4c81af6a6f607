"""Known relations between arrays are told, and unrelated ones are not."""

import numpy as np
import pytest

from common.comparison.relations import (
    constant_ratio,
    is_close,
    order,
    ratio_of,
    slope_of,
    variance,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4))
IMAGES = RNG.normal(size=(2, 3, 4, 5))
OTHER = RNG.normal(size=(3, 4))


def test_reshaped():
    assert order(X, X.reshape(2, 6)) == "agrees after reshaping"


def test_transposed():
    assert order(X, X.T) == "agrees after transposing (1, 0)"
    moved = IMAGES.transpose(0, 2, 3, 1)
    assert order(IMAGES, moved) == "agrees after transposing (0, 2, 3, 1)"


@pytest.mark.parametrize("axes", [(0, 2, 3, 1), (0, 2, 1, 3)])
def test_flattened(axes):
    left = IMAGES.reshape(2, -1)
    right = IMAGES.transpose(axes).reshape(2, -1)
    found = order(left, right)
    assert found.startswith("flattened in another order: "), found
    shape, _, permutation = found.partition(": ")[2].partition(" with the ")
    sizes = tuple(map(int, shape.strip("()").split(", ")))
    moved = tuple(map(int, permutation[6:-1].split(", ")))
    again = left.reshape(2, *sizes).transpose(0, *(i + 1 for i in moved))
    assert np.array_equal(again.reshape(2, -1), right)


def test_flattened_and_transposed():
    left = IMAGES.reshape(2, -1)
    right = IMAGES.transpose(0, 2, 3, 1).reshape(2, -1).T
    assert order(left, right).startswith("flattened in another order: ")


def test_reordered_in_no_known_way():
    shuffled = RNG.permuted(X.ravel()).reshape(X.shape)
    assert order(X, shuffled) == "the same numbers, reordered"


@pytest.mark.parametrize(
    "other", [OTHER, 2 * X, X + 1, X * (1 + 1e-6), X[:2], X.ravel()[::2]]
)
def test_other_numbers_are_no_other_order(other):
    assert order(X, other) == ""
    assert order(X, other.T) == ""


def test_float32_is_compared_as_coarsely_as_it_rounds():
    rounded = X.astype(np.float32).astype(np.float64)
    assert order(X, rounded.T) == "agrees after transposing (1, 0)"
    assert order(X, (X * (1 + 1e-6)).T) == ""


@pytest.mark.parametrize("n", [3, 6, 1000])
def test_biased_against_unbiased_variance(n):
    ratio = n / (n - 1)
    text = f"ratio N/(N-1) with N = {n}: "
    assert variance(ratio) == text + (
        "biased variance on the left against unbiased on the right"
    )
    assert variance(1 / ratio) == text + (
        "unbiased variance on the left against biased on the right"
    )
    # The right is unbiased, so it is larger.
    assert constant_ratio(X, ratio * X) == variance(ratio)
    assert constant_ratio(ratio * X, X) == variance(1 / ratio)


@pytest.mark.parametrize("ratio", [1.0, 0.0, -1.5, 2.0, 3.0, 1.4, 1 + 1e-9])
def test_other_ratios_are_no_variance(ratio):
    assert variance(ratio) == ""


def test_a_constant_ratio():
    assert constant_ratio(3 * X, X) == "the left is 3 times the right"
    assert constant_ratio(-X, X) == "the left is -1 times the right"
    for other in (X, OTHER, X + 1, np.zeros_like(X), X[:2]):
        assert constant_ratio(X, other) == ""


def test_a_few_numbers_have_no_ratio():
    assert ratio_of(X[0, :2], 2 * X[0, :2]) is None
    assert slope_of(X[0, :2], 2 * X[0, :2]) is None


def test_the_slope_of_a_linear_function():
    slope = slope_of(X, 2 * X + 5)
    assert slope is not None and is_close(slope, 2.0)
    assert slope_of(X, OTHER) is None
    assert slope_of(np.ones(5), X[:, :1].ravel()) is None


def test_numbers_in_programs():
    assert is_close(1e-5, float(np.float32(1e-5)))
    assert not is_close(1e-5, 1e-6)
    assert is_close(0.0, 0.0) and not is_close(0.0, 1e-6)
