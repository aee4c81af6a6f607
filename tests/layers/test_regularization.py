"""The definition of dropout."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from common import layers
from tests.layers.numeric import assert_agrees, normal


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_zeroes_a_fraction_p_and_scales_the_rest(p):
    x = normal(100, 50) + 10  # no element is 0
    y = np.asarray(layers.dropout(jnp.array(x), jr.key(0), p))
    kept = y != 0
    assert_agrees(y, np.where(kept, x / (1 - p), 0))
    # Six standard deviations of the fraction of 5,000 elements.
    assert abs(kept.mean() - (1 - p)) < 6 * np.sqrt(p * (1 - p) / x.size)


def test_dropout_with_p_zero_is_the_identity():
    x = normal(4, 5)
    assert np.array_equal(layers.dropout(jnp.array(x), jr.key(0), 0.0), x)


def test_dropout_masks_differ_between_examples_and_keys():
    x = jnp.ones((2, 100))
    first = layers.dropout(x, jr.key(0), 0.5)
    assert np.array_equal(first, layers.dropout(x, jr.key(0), 0.5))
    assert not np.array_equal(first, layers.dropout(x, jr.key(1), 0.5))
    assert not np.array_equal(first[0], first[1])
