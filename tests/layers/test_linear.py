"""The definition of a linear layer agrees with NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from common import layers
from tests.layers.numeric import assert_agrees, normal


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)], ids=str)
def test_linear_agrees_with_numpy(batch, bias):
    x, weight, b = normal(*batch, 3), normal(5, 3, seed=1), normal(5, seed=2)
    expected = np.zeros((*batch, 5))
    for index in np.ndindex(*batch, 5):
        *i, o = index
        expected[index] = sum(x[(*i, k)] * weight[o, k] for k in range(3))
        expected[index] += b[o] if bias else 0
    actual = layers.linear(
        jnp.array(x), jnp.array(weight), jnp.array(b) if bias else None
    )
    assert_agrees(actual, expected)
