"""Tests of settings that differ."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from flax import nnx

from common.porting import plan_port
from tests.porting import pairs


def test_settings_are_compared():
    plan = plan_port(pairs.EqxMLP(), pairs.NnxMLP(eps=1e-6))
    assert plan.notes == ("`norm`: eps 1e-5 against 1e-6",)
    assert not plan_port(pairs.EqxMLP(), pairs.NnxMLP()).notes


def test_trained_on_one_side_only():
    class Constant(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones((2, 3)))
            self.b = nnx.data(jnp.ones(3))

    plan = plan_port(pairs.Bare(jnp.ones((2, 3)), jnp.ones(3)), Constant())
    assert plan.notes == ("trained on the left only: b",)


class Left(eqx.Module):
    blocks: list
    drop: eqx.nn.Dropout
    activation: Callable

    def __init__(self):
        conv = eqx.nn.Conv2d(1, 1, 3, padding=1, stride=2, key=jr.key(0))
        norms = [eqx.nn.LayerNorm(2), eqx.nn.LayerNorm(2)]
        self.blocks = [conv, *norms]
        self.drop = eqx.nn.Dropout(0.1)
        self.activation = jax.nn.gelu


class Right(nnx.Module):
    def __init__(self):
        options = {"rngs": nnx.Rngs(0), "param_dtype": jnp.float64}
        conv = nnx.Conv(1, 1, (3, 3), padding="SAME", **options)
        norms = nnx.LayerNorm(2, **options), nnx.LayerNorm(2, **options)
        self.blocks = nnx.List([conv, *norms])
        self.drop = nnx.Dropout(0.2, rngs=nnx.Rngs(0))
        self.activation = functools.partial(jax.nn.gelu, approximate=False)


def test_settings_of_all_kinds():
    assert plan_port(Left(), Right()).notes == (
        "`blocks.0`: stride 2 against 1",
        "`blocks.{i}`: eps 1e-5 against 1e-6 (2x)",
        "`drop`: p 0.1 against 0.2",
        "`model`: activation gelu against gelu(approximate=False)",
    )


def test_equal_padding_in_other_words():
    def convolutions(padding, other):
        left = eqx.nn.Conv2d(1, 1, 3, padding=padding, key=jr.key(0))
        options = {"rngs": nnx.Rngs(0), "param_dtype": jnp.float64}
        right = nnx.Conv(1, 1, (3, 3), padding=other, **options)
        return plan_port(left, right).notes

    assert convolutions(1, "SAME") == convolutions(0, "VALID") == ()
    assert convolutions(1, ((1, 1), (1, 1))) == ()
    assert convolutions(0, "SAME") == ("`model`: padding 0 against 1",)
