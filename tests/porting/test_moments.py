"""Tests of what a port does with the state of an optimizer."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from flax import nnx

from common import build
from common.porting import port
from tests.porting import pairs
from tests.porting.pairs import close, same

XS = jr.normal(jr.key(1), (5, 4), jnp.float64)


def loss_of(model: Any):
    return jnp.sum(jnp.sin(model(XS)))


def train_equinox(pair, tx, steps=2):
    model, state = pair
    for _ in range(steps):
        grads = jax.grad(loss_of)(model)
        updates, state = tx.update(grads, state, model)
        model = optax.apply_updates(model, updates)
    return model, state


def train_flax(pair, steps=2):
    module, optimizer = pair
    for _ in range(steps):
        optimizer.update(module, nnx.grad(loss_of)(module))
    return module, optimizer


def equinox(tx):
    model = pairs.fill_equinox(pairs.EqxAttention())
    return model, tx.init(model)


def flax(tx):
    module = pairs.fill_flax(pairs.NnxAttention(), 4)
    return module, nnx.Optimizer(module, tx, wrt=nnx.Param)


def test_training_continues_in_the_other_library():
    tx = optax.adam(1e-2)
    start = train_equinox(equinox(tx), tx)
    rules: Any = {"rules": pairs.ATTENTION}
    target = flax(tx)
    module, optimizer = port(start, target, **rules)
    assert module is target[0] and optimizer is target[1]
    assert int(optimizer.step[...]) == 2
    back = port((module, optimizer), equinox(tx), **rules)
    assert same(back[0], start[0])
    assert all(
        np.array_equal(a, b)
        for a, b in zip(
            *map(jax.tree.leaves, (back[1], start[1])), strict=True
        )
    )
    expected: Any = train_equinox(start, tx)[0]
    got, _ = train_flax((module, optimizer))
    assert close(expected(XS), got(XS))


def test_a_kept_parameter_keeps_its_moments():
    tx = optax.adam(1e-2)
    start = train_equinox(equinox(tx), tx)
    target = train_flax(flax(tx), 1)
    before = np.asarray(target[1].opt_state[0].mu["layer1"]["o_proj"]["bias"])
    port(
        start,
        target,
        rules=pairs.ATTENTION.replace("{i}.out", "1.out").replace(
            "{i+1}.o_proj", "2.o_proj"
        ),
        ignore=["blocks.0.out"],
        keep=["layer1.o_proj"],
    )
    after = target[1].opt_state[0].mu["layer1"]["o_proj"]["bias"]
    assert np.array_equal(before, after) and before.any()


def test_a_model_alone_leaves_the_optimizer_alone():
    tx = optax.adam(1e-2)
    target = train_flax(flax(tx), 1)
    port(equinox(tx)[0], target, rules=pairs.ATTENTION)
    assert int(target[1].step[...]) == 1


def test_another_optimizer():
    tx = optax.sgd(1e-2)
    target = flax(optax.adam(1e-2))
    before = target[0].layer1.q_proj.kernel[...]
    with pytest.raises(ValueError, match="optimizer: got the state"):
        port(equinox(tx), target, rules=pairs.ATTENTION)
    assert np.array_equal(before, target[0].layer1.q_proj.kernel[...])


def test_state_of_another_shape_than_its_parameter():
    tx = optax.adafactor(1e-2, min_dim_size_to_factor=2)
    with pytest.raises(ValueError, match="initialize the optimizer anew"):
        port(equinox(tx), flax(tx), rules=pairs.ATTENTION)


def test_a_model_state_and_optimizer():
    def make():
        model, state = eqx.nn.make_with_state(pairs.EqxCNN)()
        params = eqx.filter(model, eqx.is_inexact_array)
        return model, state, optax.adam(1e-2).init(params)

    source = make()
    model, state, opt_state = port(source, make())
    assert same((model, state), source[:2])
    assert jax.tree.structure(opt_state) == jax.tree.structure(source[2])
    (model, state), opt_state = port(source, (make()[:2], make()[2]))
    assert same((model, state), source[:2])


class Tied(nnx.Module):
    def __init__(self):
        self.table = nnx.Param(jnp.arange(6.0).reshape(2, 3))


class Untied(eqx.Module):
    embed: jax.Array
    head: jax.Array


def test_copies_have_the_same_moments():
    """Two arrays that become one have one state of the optimizer."""
    tx = optax.adam(1e-2)
    module = Tied()
    tied = module, nnx.Optimizer(module, tx, wrt=nnx.Param)
    rules: Any = {
        "rules": "table -> copy -> embed\ntable -> transpose -> head"
    }
    tied[1].update(
        module, nnx.grad(lambda m: jnp.sum(m.table[...] ** 2))(module)
    )
    model = Untied(jnp.ones((2, 3)), jnp.ones((3, 2)))
    model, state = port(tied, (model, tx.init(model)), **rules)
    assert state[0].mu.embed.any()
    assert np.array_equal(state[0].mu.head, state[0].mu.embed.T)
    again = port((model, state), tied, **rules)
    assert np.array_equal(again[1].opt_state[0].mu["table"], state[0].mu.embed)
    other = eqx.tree_at(lambda s: s[0].nu.head, state, replace_fn=jnp.square)
    before = np.asarray(module.table[...])
    with pytest.raises(ValueError, match="of 'head': got other values than"):
        port((model, other), tied, **rules)
    assert np.array_equal(before, module.table[...])
    port((model, other), tied, ignore=["head"], rules="embed -> copy -> table")


def test_an_optimizer_of_neither_library():
    with pytest.raises(TypeError, match="expected an nnx.Optimizer"):
        port(pairs.NnxMLP(), (pairs.NnxMLP(), optax.EmptyState()))


def test_a_state_with_an_optimizer():
    options: Any = {"dtype": "float64"}
    trainer = build(backend="flax", **options)
    xs = jr.normal(jr.key(0), (4, 3), jnp.float64)
    trainer.step(xs, jnp.sin(xs))
    state = trainer.state()
    target = build(backend="equinox", **options).native[:3]
    expected = build(backend="equinox", **options).load(state).native[:3]
    module, optimizer, _ = trainer.native
    for source in (state, (module, optimizer)):
        ported = port(source, target)
        leaves = map(jax.tree.leaves, (ported, expected))
        for got, want in zip(*leaves, strict=True):
            assert not eqx.is_array(want) or np.array_equal(got, want)
    with pytest.raises(ValueError, match="optimizer: got a State without"):
        other = build(backend="flax", optimizer=optax.sgd(0.1), **options)
        port(other.state(), target)
