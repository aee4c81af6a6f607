"""Tests the values that do not depend on the order of axes."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from common.alignment.fill import dims_of, random_like, shuffled, symmetric

SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)


@hypothesis.given(shape=SHAPES, point=st.integers(0, 2))
def test_permuting_axes_gives_the_values_of_the_permuted_shape(shape, point):
    values = symmetric(shape, point)
    assert values.shape == shape
    for order in itertools.permutations(range(len(shape))):
        permuted = tuple(shape[axis] for axis in order)
        np.testing.assert_array_equal(
            values.transpose(order), symmetric(permuted, point)
        )


def test_vectors_can_be_variances_and_matrices_have_mean_zero():
    assert symmetric((50,)).min() > 0
    assert abs(symmetric((50, 60)).mean()) < 0.02


def test_points_differ():
    assert not np.array_equal(symmetric((3, 4), 0), symmetric((3, 4), 1))


def test_axes_of_size_1_do_not_count():
    assert dims_of((1, 5, 1, 2)) == (2, 5)
    np.testing.assert_array_equal(
        symmetric((1, 5, 2)).reshape(5, 2), symmetric((5, 2))
    )


@pytest.mark.parametrize("shape", [(6,), (3, 4)])
def test_random_values_break_the_symmetry(shape):
    rng = np.random.default_rng(0)
    values = symmetric(shape)
    assert not np.array_equal(shuffled(values, rng), values)
    drawn = random_like(values, rng)
    assert drawn.shape == shape
    assert (drawn > 0).all() or len(shape) > 1
