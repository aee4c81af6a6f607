"""Tests of `register_layer` and `register_stack`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from common import build
from common.agreement import tolerance
from common.layouts import Rule
from common.porting import plan_port, port, register_layer, register_stack
from common.registry import find_porting
from tests.conftest import exhaustive_but


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


# --- stacked layers ---------------------------------------------------------


class Block(eqx.Module):
    linear: eqx.nn.Linear
    norm: eqx.nn.BatchNorm

    def __init__(self, key):
        self.linear = eqx.nn.Linear(3, 3, key=key)
        self.norm = eqx.nn.BatchNorm(3, "batch", mode="batch", momentum=0.9)

    def __call__(self, x, state):
        return self.norm(self.linear(x), state)


class Listed(eqx.Module):
    blocks: list[Block]

    def __init__(self):
        self.blocks = [Block(key) for key in jax.random.split(KEY, 2)]

    def __call__(self, x, state):
        for block in self.blocks:
            x, state = eqx.filter_checkpoint(block)(x, state)
        return x, state


class Scanned(eqx.Module):
    """The same, stacked and run in a scan that rematerializes them."""

    blocks: Block

    def __init__(self):
        self.blocks = eqx.filter_vmap(Block)(jax.random.split(KEY, 2))

    def __call__(self, x, state):
        arrays, static = eqx.partition(self.blocks, eqx.is_array)

        @jax.checkpoint
        def call(x, slices):
            arrays, state = slices
            return eqx.combine(arrays, static)(x, state)

        states = state.substate(self.blocks)
        x, states = jax.lax.scan(call, x, (arrays, states))
        return x, state.update(states)


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        options = {"rngs": rngs, "param_dtype": jnp.float64}
        self.linear = nnx.Linear(3, 3, **options)
        self.norm = nnx.BatchNorm(3, momentum=0.9, **options)
        for statistic in (self.norm.mean, self.norm.var):
            statistic.set_value(statistic[...].astype(jnp.float64))

    def __call__(self, x):
        return self.norm(self.linear(x))


class NnxListed(nnx.Module):
    def __init__(self):
        self.blocks = nnx.List([NnxBlock(nnx.Rngs(i)) for i in range(2)])

    def __call__(self, x):
        for block in self.blocks:
            x = nnx.remat(NnxBlock.__call__)(block, x)
        return x


class NnxScanned(nnx.Module):
    def __init__(self):
        make = nnx.split_rngs(splits=2)(nnx.vmap(NnxBlock))
        self.blocks = make(nnx.Rngs(0))

    def __call__(self, x):
        scan = nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        return scan(nnx.remat(NnxBlock.__call__))(self.blocks, x)


KEY = jax.random.key(0)
STACKED = {
    "equinox": (Listed, Scanned),
    "flax": (NnxListed, NnxScanned),
}


@pytest.fixture
def stacks(monkeypatch):
    for library, (_, scanned) in STACKED.items():
        monkeypatch.setitem(find_porting(library).RULES, scanned, Rule())
        register_stack(scanned, "blocks")


def make(library, index):
    kind = STACKED[library][index]
    return eqx.nn.make_with_state(kind)() if library == "equinox" else kind()


def trained(native):
    """Trains a model of the user for a step, and predicts with it."""
    xs = np.random.default_rng(0).normal(size=(6, 3))
    trainer = build(model=native, loss="mse", optimizer=optax.adam(0.1))
    trainer.step(xs, xs)
    return trainer, trainer.predict(xs)


PORTS = [
    f"{left}-{right}"
    for left in ("equinox0", "equinox1", "flax0", "flax1")
    for right in ("equinox0", "equinox1", "flax0", "flax1")
    if left != right
]


@pytest.mark.parametrize("pair", exhaustive_but(PORTS, "equinox1-flax0"))
def test_stacked_layers_become_listed_ones_and_back(pair, stacks):
    left, right = ((x[:-1], int(x[-1])) for x in pair.split("-"))
    trainer, expected = trained(make(*left))
    # The statistics of Equinox's "batch" are divided at inference.
    choice = "serve" if left[0] != right[0] else None
    target = make(*right)
    moved = port(trainer.native, target, batch_norm=choice)
    xs = np.random.default_rng(0).normal(size=(6, 3))
    options = {"loss": "mse", "optimizer": optax.adam(0.1)}
    found = build(model=moved, **options).predict(xs)
    error = np.max(np.abs(found - expected))
    assert error <= tolerance("float64", "eval")
    names = [x for x in trainer.state().params if "weight" in x]
    assert "blocks.1.linear.weight" in names


@pytest.mark.exhaustive
def test_a_stack_without_a_name_is_ported_by_rules():
    rules = """
    blocks.linear.weight -> unstack -> transpose -> blocks.{i}.linear.kernel
    blocks.linear.bias -> unstack -> blocks.{i}.linear.bias
    blocks.norm.weight -> unstack -> blocks.{i}.norm.scale
    blocks.norm.bias -> unstack -> blocks.{i}.norm.bias
    blocks.norm.batch_state_index.0 -> unstack -> blocks.{i}.norm.mean
    blocks.norm.batch_state_index.1 -> unstack -> blocks.{i}.norm.var
    blocks.norm.batch_counter -> nothing
    """
    source = make("equinox", 1)
    moved = port(source, make("flax", 0), rules=rules, batch_norm="serve")
    for i, block in enumerate(moved.blocks):
        weight = source[0].blocks.linear.weight[i]
        assert np.array_equal(block.linear.kernel[...], weight.T)


def test_stacked_layers_that_were_updated_differently_need_a_name():
    model, state = make("equinox", 1)
    counts = state.get(model.blocks.norm.batch_counter).at[1].set(1)
    state = state.set(model.blocks.norm.batch_counter, counts)
    expected = r"batch norms '.+': got the different values \[0 1\] in .+"
    with pytest.raises(ValueError, match=expected):
        plan_port((model, state), make("flax", 1), batch_norm="serve")


def test_a_stack_without_attributes_is_refused():
    expected = r"register_stack of Scanned: got no attribute, expected .+"
    with pytest.raises(ValueError, match=expected):
        register_stack(Scanned)


def test_a_list_is_no_stack(monkeypatch):
    monkeypatch.setitem(find_porting("equinox").RULES, Listed, Rule())
    register_stack(Listed, "blocks")
    plan = plan_port(make("equinox", 0), make("equinox", 0))
    assert "blocks.1.linear.weight" in plan.layouts
