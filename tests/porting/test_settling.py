"""Tests of arrays whose axis order may be unknown."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from common.porting import port
from tests.porting import pairs


def test_a_square_array_needs_an_order():
    source = pairs.Bare(jnp.arange(9.0).reshape(3, 3), jnp.ones(3))
    with pytest.raises(
        ValueError,
        match=r"w \(3, 3\) -> w \(3, 3\): got an axis order that no",
    ):
        port(source, pairs.NnxBare(), dtype="target")
    options = {"dtype": "target"}
    copied = port(source, pairs.NnxBare(), rules="w -> copy -> w", **options)
    assert np.array_equal(copied.w[...], source.w)
    turned = port(
        source, pairs.NnxBare(), rules="w -> transpose -> w", **options
    )
    assert np.array_equal(turned.w[...], source.w.T)
    other = pairs.Bare(jnp.arange(6.0).reshape(2, 3), jnp.ones(3))
    port(other, pairs.NnxBare((2, 3)), **options)


def test_a_weight_that_meets_a_bare_array():
    class Both(eqx.Module):
        w: Bare

    source = {"w": pairs.Bare(jnp.ones((4, 3)), jnp.ones(4))}
    del source
    left = Both(pairs.Bare(jnp.arange(12.0).reshape(3, 4), jnp.ones(4)))
    rules = {"w.w": "w.kernel", "w.b": "w.bias"}
    target = pairs.NnxDense(4)
    port(left, target, rules=rules, dtype="target")
    assert np.array_equal(target.w.kernel[...], left.w.w)
    square = Both(pairs.Bare(jnp.ones((3, 3)), jnp.ones(3)))
    with pytest.raises(ValueError, match="no layer type settles"):
        port(square, pairs.NnxDense(), rules=rules, dtype="target")
