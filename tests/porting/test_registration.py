"""Tests of `register_layer`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from common.porting import plan_port, port, register_layer
from common.registry import find_porting


class Dense(eqx.Module):
    """Computes `x @ w + b`."""

    w: jax.Array
    b: jax.Array


class Norm(eqx.Module):
    """A batch norm with names of its own, in a State."""

    gamma: jax.Array
    beta: jax.Array
    statistics: eqx.nn.StateIndex

    def __init__(self):
        self.gamma, self.beta = jnp.full(3, 2.0), jnp.ones(3)
        self.statistics = eqx.nn.StateIndex((jnp.zeros(3), jnp.ones(3)))


class Model(eqx.Module):
    dense: Dense
    norm: Norm

    def __init__(self):
        weight = jnp.arange(9.0).reshape(3, 3)
        self.dense = Dense(weight, jnp.ones(3))
        self.norm = Norm()


class Module(nnx.Module):
    def __init__(self):
        options = {"rngs": nnx.Rngs(0), "param_dtype": jnp.float64}
        self.dense = nnx.Linear(3, 3, **options)
        self.norm = nnx.BatchNorm(3, **options)
        for statistic in (self.norm.mean, self.norm.var):
            statistic.set_value(jnp.full(3, 5.0))


@pytest.fixture
def registered():
    before = dict(find_porting("equinox").RULES)
    register_layer(Dense, {"w": "transpose -> weight", "b": "bias"})
    register_layer(
        Norm,
        {
            "gamma": "weight",
            "beta": "bias",
            "statistics": ("running_mean", "running_var"),
        },
    )
    yield
    rules = find_porting("equinox").RULES
    rules.clear()
    rules.update(before)


def test_a_users_own_layers(registered):
    source = eqx.nn.make_with_state(Model)()
    target = port(source, Module())
    assert np.array_equal(target.dense.kernel[...], source[0].dense.w)
    assert np.array_equal(target.norm.scale[...], source[0].norm.gamma)
    assert target.norm.var[...].tolist() == [1.0, 1.0, 1.0]
    pair = port(Module(), source)
    mean, var = pair[1].get(pair[0].norm.statistics)
    assert mean.tolist() == var.tolist() == [5.0, 5.0, 5.0]


def test_they_are_refused_before():
    with pytest.raises(ValueError, match="source dense.w"):
        plan_port(eqx.nn.make_with_state(Model)(), Module())


def test_a_class_of_neither_library():
    with pytest.raises(TypeError, match="layer: got <class 'int'>, expected"):
        register_layer(int, {})


def test_wrong_text():
    with pytest.raises(ValueError, match="Dense.w: got 'transpose ->', "):
        register_layer(Dense, {"w": "transpose ->"})
    with pytest.raises(ValueError, match="got the step 'a b'"):
        register_layer(Dense, {"w": "a b -> weight"})
