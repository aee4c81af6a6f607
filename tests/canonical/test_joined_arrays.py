"""`nnx.LSTMCell` keeps a canonical array in four: they count as one."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from common.training import optimizers
from impl_flax import canonical
from impl_flax.named import NamedParameters

CELLS = (nnx.LSTMCell, nnx.OptimizedLSTMCell)


class Model(nnx.Module):
    """A cell and a layer whose arrays are not joined."""

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
    """Trains from the same start; returns all that there is at the end."""
    module = Model(make_cell)
    layouts = canonical.layouts(module, nnx.Param)
    start = {
        name: np.cos(np.arange(x.size)).reshape(x.shape)
        for name, x in canonical.read(module, layouts).items()
    }
    canonical.write(module, layouts, start)
    named = NamedParameters(module)
    # The norm of a whole array, and an array in whose place there is none.
    optimizer = optax.chain(
        optax.clip_by_block_rms(1e-3), optax.masked(optax.adam(0.1), weights)
    )
    params = nnx.as_pure(nnx.state(module, nnx.Param))
    view: Any = optimizers.NamedOptimizer(optimizer, named, params)
    assert view.native_order
    optimizer = nnx.Optimizer(module, view, wrt=nnx.Param)
    x = jnp.arange(6.0).reshape(2, 3)
    for _ in range(2):
        grads = nnx.grad(lambda module: jnp.sum(module(x)))(module)
        optimizer.update(module, grads)
    state = view.read(nnx.as_pure(optimizer.opt_state))
    return canonical.read(module, layouts) | state


def test_a_run_is_that_of_the_cell_that_keeps_it_in_one():
    separate, joined = map(train, CELLS)
    assert separate.keys() == joined.keys()
    assert separate["cell.weight_hh"].shape == (16, 4)
    for name in joined:
        assert np.array_equal(separate[name], joined[name]), name


@pytest.mark.parametrize("make_cell", CELLS)
def test_optimizer_state_goes_both_ways(make_cell):
    module = Model(make_cell)
    named = NamedParameters(module)
    params = nnx.as_pure(nnx.state(module, nnx.Param))
    view = optimizers.NamedOptimizer(optax.adam(0.1), named, params)
    opt_state = view.init(params)
    arrays = view.read(opt_state)
    arrays = {
        name: x + np.arange(x.size).reshape(x.shape)
        for name, x in arrays.items()
    }
    again = view.read(view.write(opt_state, arrays))
    assert again.keys() == arrays.keys()
    for name in arrays:
        assert np.array_equal(again[name], arrays[name]), name


def test_gates_are_in_the_order_of_the_canonical_rows():
    module = nnx.LSTMCell(1, 1, rngs=nnx.Rngs(0))
    layouts = canonical.layouts(module, nnx.Param)
    bias = np.arange(4.0)
    weight = np.zeros((4, 1))
    arrays = {"weight_ih": weight, "weight_hh": weight, "bias": bias}
    canonical.write(module, layouts, arrays)
    state = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    gates = [state[name]["bias"] for name in ("hi", "hf", "hg", "ho")]
    assert np.array_equal(np.concatenate(gates), bias)
