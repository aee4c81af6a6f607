"""Tests of arrays whose axis order may be unknown."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from common.porting import port
from tests.porting import pairs


def test_a_square_array_needs_an_order():
    source = pairs.Bare(jnp.arange(9.0).reshape(3, 3), jnp.ones(3))
    with pytest.raises(
        ValueError,
        match=r"w \(3, 3\) -> w \(3, 3\): got an axis order that no",
    ):
        port(source, pairs.NnxBare(), dtype="target")
    options: Any = {"dtype": "target"}
    copied = port(source, pairs.NnxBare(), rules="w -> copy -> w", **options)
    assert np.array_equal(copied.w[...], source.w)
    turned = port(
        source, pairs.NnxBare(), rules="w -> transpose -> w", **options
    )
    assert np.array_equal(turned.w[...], source.w.T)
    other = pairs.Bare(jnp.arange(6.0).reshape(2, 3), jnp.ones(3))
    port(other, pairs.NnxBare((2, 3)), **options)


class Block(eqx.Module):
    w: Any


class Named(eqx.Module):
    weight: jax.Array
    bias: jax.Array


RULES = {"w.w": "w.kernel", "w.b": "w.bias"}


def test_a_weight_that_meets_a_bare_array():
    square = Block(pairs.Bare(jnp.ones((3, 3)), jnp.ones(3)))
    target = pairs.NnxDense()
    with pytest.raises(ValueError, match="no layer type settles"):
        port(square, target, rules=RULES, dtype="target")
    named = {"w.weight": square.w.w, "w.bias": square.w.b}
    port(named, target, dtype="target")  # a mapping has PyTorch's order
    other = pairs.Bare(jnp.ones((3, 4)), jnp.ones(4))
    rectangle = port(
        Block(other), pairs.NnxDense(4), rules=RULES, dtype="target"
    )
    assert np.array_equal(rectangle.w.kernel[...], other.w)


def test_equal_names_do_not_settle_the_order():
    source = Block(Named(jnp.ones((4, 3)), jnp.ones(4)))
    with pytest.raises(ValueError, match="got a layer's weight on one side"):
        port(source, pairs.NnxDense(4), dtype="target")
    with pytest.raises(ValueError, match="got a layer's weight on one side"):
        port(source, pairs.NnxDense(4), rules="w -> w", dtype="target")


class Other(nnx.Module):
    def __init__(self):
        self.w = nnx.Linear(4, 3, rngs=nnx.Rngs(0))


def test_a_rule_without_steps_between_layers_of_other_sizes():
    left = Block(eqx.nn.Linear(3, 4, key=jax.random.key(0)))
    right = Block(eqx.nn.Linear(4, 3, key=jax.random.key(0)))
    rules = "w.weight -> w.kernel"
    with pytest.raises(ValueError, match=r"w.weight \(4, 3\) -> w.kernel"):
        port(left, Other(), rules=rules, dtype="target")
    target = port(right, Other(), rules=rules, dtype="target")
    expected = right.w.weight.T.astype("float32")
    assert np.array_equal(target.w.kernel[...], expected)
