"""Tests of plans of two models."""

import jax.numpy as jnp
import pytest
from flax import nnx

from common.porting import plan_port, port
from tests.porting import pairs


def test_derive():
    class Scaled(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones((2, 3)))
            self.b = nnx.Param(jnp.ones(3))
            self.scale = nnx.Param(jnp.ones(2))

    source = pairs.Bare(jnp.ones((2, 3), "float32"), jnp.ones(3, "float32"))
    rules = "derive([0.5, 2.0]) -> scale"
    target = port(source, Scaled(), rules=rules)
    assert target.scale[...].tolist() == [0.5, 2.0]
    plan = plan_port(target, source, rules=rules)
    assert plan.ignored == ("scale",)


def test_flatten_that_does_not_fit():
    options = {"batch_norm": "serve"}
    target = pairs.fill_flax(pairs.NnxCNN())
    with pytest.raises(ValueError, match=r"flatten 'head': got the sizes"):
        port(pairs.cnn(), target, flatten={"head": (4, 4, 3)}, **options)
    with pytest.raises(ValueError, match="got no weight that is matched"):
        port(pairs.cnn(), target, flatten={"conv.bias": (4, 6, 3)}, **options)
    with pytest.raises(ValueError, match="two models of one axis order"):
        port(pairs.cnn(), pairs.cnn(), flatten=pairs.FLATTEN)
