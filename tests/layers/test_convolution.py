"""The definition of a convolution agrees with NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from common import layers
from tests.layers.numeric import assert_agrees, normal


def numpy_conv(x, weight, bias, padding):
    p = padding
    x = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    out, _, kh, kw = weight.shape
    height, width = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    y = np.zeros((len(x), height, width, out))
    for b, i, j, o in np.ndindex(y.shape):
        window = x[b, i : i + kh, j : j + kw]  # (kh, kw, in)
        kernel = weight[o].transpose(1, 2, 0)
        y[b, i, j, o] = np.sum(window * kernel) + bias[o]
    return y


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 2)], ids=str)
def test_convolution_agrees_with_numpy(kernel, padding):
    x, weight = normal(2, 5, 4, 3), normal(6, 3, *kernel, seed=1)
    bias = normal(6, seed=2)
    actual = layers.conv(
        jnp.array(x), jnp.array(weight), jnp.array(bias), padding=padding
    )
    assert_agrees(actual, numpy_conv(x, weight, bias, padding))


def test_without_a_bias_nothing_is_added():
    x, weight = normal(2, 5, 4, 3), normal(6, 3, 2, 2, seed=1)
    actual = layers.conv(jnp.array(x), jnp.array(weight))
    assert_agrees(actual, numpy_conv(x, weight, np.zeros(6), 0))
