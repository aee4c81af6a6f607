"""Tests of what names match without rules."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from flax import nnx

from common.native import NativeModel
from common.porting import plan_port, port


class Numbered(nnx.Module):
    def __init__(self, first, count=4):
        for i in range(first, first + count):
            layer = nnx.Linear(3, 3, rngs=nnx.Rngs(i))
            setattr(self, f"layer{i}", layer)


def test_numbers_are_never_shifted():
    with pytest.raises(ValueError) as caught:
        port(Numbered(1), Numbered(0))
    message = str(caught.value)
    for i in range(5):
        assert (f"source layer{i}.kernel (3, 3)" in message) == (i > 0)
        assert (f"target layer{i}.kernel (3, 3)" in message) == (i < 4)
    rules = "  layer{i+1}.kernel -> layer{i}.kernel"
    assert rules in message and "layer{i+1}.bias -> layer{i}.bias" in message
    assert "`align(source, target, x)`" in message and "`diff`" in message
    source: Any = Numbered(1)
    target: Any = Numbered(0)
    port(source, target, rules="layer{i+1} -> layer{i}")
    assert np.array_equal(target.layer0.kernel[...], source.layer1.kernel[...])


def test_many_arrays_are_named_together():
    with pytest.raises(ValueError) as caught:
        port(Numbered(1, 30), Numbered(0, 30))
    message = str(caught.value)
    assert "source layer{i=1..30}.kernel (3, 3) float32 (30x)" in message
    assert "target layer{i=0..29}.bias (3,) float32 (30x)" in message


def test_random_state_stays_where_it_is():
    class Layer(nnx.Module):
        def __init__(self, seed):
            self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(seed))
            self.scale = nnx.Param(jnp.full(3, seed, jnp.float64))

    class Model(eqx.Module):
        dropout: eqx.nn.Dropout
        scale: jax.Array

    source = Model(eqx.nn.Dropout(0.5), jnp.ones(3))
    plan = plan_port(source, Layer(2))
    assert plan.kept == ("dropout.rngs.count", "dropout.rngs.key")
    assert plan.inverse() == plan_port(Layer(2), source)
    ported = port(Layer(4), Layer(2))
    key, expected = (
        NativeModel(layer).arrays()["dropout.rngs.key"]
        for layer in (ported, Layer(4))
    )
    assert np.array_equal(jr.key_data(key), jr.key_data(expected))
