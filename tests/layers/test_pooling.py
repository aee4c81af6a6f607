"""The definitions of pooling and flattening agree with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import layers
from tests.layers.numeric import normal


@pytest.mark.parametrize("size", [(4, 6), (5, 7)], ids=["fits", "leftover"])
def test_max_pool_agrees_with_numpy(size):
    x = normal(2, *size, 3)
    expected = np.zeros((2, 2, 3, 3))
    for b, i, j, c in np.ndindex(expected.shape):
        square = x[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        expected[b, i, j, c] = square.max()
    actual = layers.max_pool(jnp.array(x), (2, 2), stride=2)
    assert np.array_equal(actual, expected)


def test_the_gradient_of_max_pool_is_that_of_the_maximum():
    x = jnp.array(normal(1, 4, 4, 1))

    def pool(x):
        return layers.max_pool(x, (2, 2), stride=2)

    gradient = jax.grad(lambda x: jnp.sum(pool(x)))(x)
    maxima = np.isin(x, pool(x))
    assert np.array_equal(gradient, maxima)


def test_max_pool_propagates_nan():
    """So that an error in an earlier layer stays visible."""
    x = jnp.array([-np.inf, np.nan]).reshape(1, 2, 1)
    assert np.isnan(layers.max_pool(x, (2,))).all()


def test_flatten_puts_channels_before_spatial_axes():
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5) * 1.0
    y = layers.flatten(jnp.array(x))
    assert y.shape == (2, 60)
    for b, h, w, c in np.ndindex(x.shape):
        assert y[b, (c * 3 + h) * 4 + w] == x[b, h, w, c]
