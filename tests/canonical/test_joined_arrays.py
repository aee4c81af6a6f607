"""`nnx.LSTMCell` has four arrays where the canonical form has one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from common.layouts import Role
from common.training import optimizers
from impl_flax.canonical import Layouts

CELLS = (nnx.LSTMCell, nnx.OptimizedLSTMCell)


class Model(nnx.Module):
    """A cell, and a layer whose arrays are not joined."""

    def __init__(self, make_cell):
        rngs = nnx.Rngs(0)
        self.cell = make_cell(3, 4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        zeros = jnp.zeros((2, 4))
        _, y = self.cell((zeros, zeros), x)
        return self.head(y)


def weights(params):
    return {name: name.endswith("weight_hh") for name in params}


def train(make_cell):
    """Trains from fixed values; returns the parameters and the moments."""
    module = Model(make_cell)
    layouts = Layouts(module)
    start = {
        name: np.cos(np.arange(x.size)).reshape(x.shape)
        for name, x in layouts.read(module).items()
    }
    layouts.write(module, start)
    # Uses the norm of a whole array, and puts a MaskedNode in place of some.
    optimizer = optax.chain(
        optax.clip_by_block_rms(1e-3), optax.masked(optax.adam(0.1), weights)
    )
    params = nnx.as_pure(nnx.state(module, nnx.Param))
    named: Any = optimizers.NamedOptimizer(optimizer, layouts, params)
    assert named.native_order
    optimizer = nnx.Optimizer(module, named, wrt=nnx.Param)
    x = jnp.arange(6.0).reshape(2, 3)
    for _ in range(2):
        grads = nnx.grad(lambda module: jnp.sum(module(x)))(module)
        optimizer.update(module, grads)
    state = named.read(nnx.as_pure(optimizer.opt_state))
    return layouts.read(module) | state


def test_a_run_is_the_same_as_with_the_cell_that_has_one_array():
    separate, joined = map(train, CELLS)
    assert separate.keys() == joined.keys()
    assert separate["cell.weight_hh"].shape == (16, 4)
    for name in joined:
        assert np.array_equal(separate[name], joined[name]), name


@pytest.mark.parametrize("make_cell", CELLS)
def test_optimizer_state_round_trips(make_cell):
    module = Model(make_cell)
    layouts = Layouts(module)
    optimizer = nnx.Optimizer(module, optax.adam(0.1), wrt=nnx.Param)
    state = layouts.to_canonical(nnx.as_pure(optimizer.opt_state))
    state = jax.tree.map(
        lambda x: x + np.arange(x.size).reshape(x.shape), state
    )
    again = layouts.to_canonical(layouts.from_canonical(state))
    assert jax.tree.structure(again) == jax.tree.structure(state)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, state))


def test_one_number_for_each_parameter_round_trips():
    layouts = Layouts(Model(nnx.LSTMCell))
    names = layouts.names(Role.PARAMETER)
    state = {name: jnp.float32(i) for i, name in enumerate(names)}
    assert layouts.to_names(layouts.to_native(state)) == state
    assert layouts.to_canonical(layouts.from_canonical(state)) == state


def test_gates_are_in_the_order_of_the_canonical_rows():
    module = nnx.LSTMCell(1, 1, rngs=nnx.Rngs(0))
    bias = np.arange(4.0)
    weight = np.zeros((4, 1))
    arrays = {"weight_ih": weight, "weight_hh": weight, "bias": bias}
    Layouts(module).write(module, arrays)
    state = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    gates = [state[name]["bias"] for name in ("hi", "hf", "hg", "ho")]
    assert np.array_equal(np.concatenate(gates), bias)
