"""Tests of settings that differ."""

import jax.numpy as jnp
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
