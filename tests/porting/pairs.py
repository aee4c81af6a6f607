"""Small models in both libraries, of which the arrays correspond."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx
from jax import lax

from common import agreement
from common.native import NativeModel


def fill_equinox(model, seed=0):
    """Replaces every floating array, in the same dtype."""
    leaves, treedef = jax.tree.flatten(model)
    keys = jr.split(jr.key(seed), len(leaves))
    return treedef.unflatten(
        jr.uniform(key, x.shape, x.dtype, 0.5, 1.5)
        if eqx.is_inexact_array(x)
        else x
        for key, x in zip(keys, leaves, strict=True)
    )


def fill_flax(module, seed=0):
    """Replaces every floating Variable in place, in float64."""
    state = nnx.state(module)
    leaves, treedef = jax.tree.flatten(state)
    keys = jr.split(jr.key(seed), len(leaves))
    new = (
        jr.uniform(key, x.shape, jnp.float64, 0.5, 1.5)
        if jnp.issubdtype(x.dtype, jnp.inexact)
        else x
        for key, x in zip(keys, leaves, strict=True)
    )
    nnx.update(module, treedef.unflatten(new))
    return module


class EqxMLP(eqx.Module):
    layers: list
    norm: eqx.nn.LayerNorm

    def __init__(self, key=None, eps=1e-5):
        keys = jr.split(jr.key(0) if key is None else key, 2)
        self.layers = [
            eqx.nn.Linear(4, 4, key=keys[0]),
            eqx.nn.Linear(4, 3, key=keys[1]),
        ]
        self.norm = eqx.nn.LayerNorm(4, eps=eps)

    def __call__(self, x):
        x = jax.nn.relu(self.norm(self.layers[0](x)))
        return self.layers[1](x)


class NnxMLP(nnx.Module):
    def __init__(self, rngs=None, eps=1e-5):
        rngs = nnx.Rngs(1) if rngs is None else rngs
        options = {"rngs": rngs, "param_dtype": jnp.float64}
        self.layers = nnx.List(
            [nnx.Linear(4, 4, **options), nnx.Linear(4, 3, **options)]
        )
        self.norm = nnx.LayerNorm(
            4, epsilon=eps, use_fast_variance=False, **options
        )

    def __call__(self, x):
        x = jax.nn.relu(self.norm(self.layers[0](x)))
        return self.layers[1](x)


class EqxAttention(eqx.Module):
    """Fused projections, in a list of blocks."""

    blocks: list

    def __init__(self):
        self.blocks = [
            {
                "qkv": eqx.nn.Linear(4, 12, key=jr.key(i)),
                "out": eqx.nn.Linear(4, 4, key=jr.key(i + 9)),
            }
            for i in range(2)
        ]

    def __call__(self, xs):
        for block in self.blocks:
            q, k, v = jnp.split(jax.vmap(block["qkv"])(xs), 3, axis=-1)
            weights = jax.nn.softmax(q @ k.T)
            xs = xs + jax.vmap(block["out"])(weights @ v)
        return xs


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        options = {"rngs": rngs, "param_dtype": jnp.float64}
        self.q_proj = nnx.Linear(4, 4, **options)
        self.k_proj = nnx.Linear(4, 4, **options)
        self.v_proj = nnx.Linear(4, 4, **options)
        self.o_proj = nnx.Linear(4, 4, **options)

    def __call__(self, xs):
        q, k, v = self.q_proj(xs), self.k_proj(xs), self.v_proj(xs)
        return xs + self.o_proj(jax.nn.softmax(q @ k.T) @ v)


class NnxAttention(nnx.Module):
    """Three projections, in attributes whose numbers start at 1."""

    def __init__(self):
        self.layer1 = NnxBlock(nnx.Rngs(0))
        self.layer2 = NnxBlock(nnx.Rngs(1))

    def __call__(self, xs):
        return self.layer2(self.layer1(xs))


ATTENTION = """
blocks.{i}.qkv -> split -> layer{i+1}.{q,k,v}_proj
blocks.{i}.out -> layer{i+1}.o_proj
"""


class EqxScan(eqx.Module):
    stack: eqx.nn.Linear

    def __init__(self):
        make = eqx.filter_vmap(lambda key: eqx.nn.Linear(3, 3, key=key))
        self.stack = make(jr.split(jr.key(0), 3))

    def __call__(self, x):
        arrays, static = eqx.partition(self.stack, eqx.is_array)

        def step(x, layer):
            return jnp.tanh(eqx.combine(layer, static)(x)), None

        return lax.scan(step, x, arrays)[0]


class NnxList(nnx.Module):
    def __init__(self):
        self.layers = nnx.List(
            [
                nnx.Linear(3, 3, rngs=nnx.Rngs(i), param_dtype=jnp.float64)
                for i in range(3)
            ]
        )

    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x


SCAN = """
stack.weight -> unstack -> transpose -> layers.{i}.kernel
stack.bias -> unstack -> layers.{i}.bias
"""


class EqxCNN(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    up: eqx.nn.ConvTranspose2d
    head: eqx.nn.Linear

    def __init__(self, mode: Literal["batch", "ema"] = "batch"):
        self.conv = eqx.nn.Conv2d(1, 2, 3, padding=1, key=jr.key(0))
        self.norm = eqx.nn.BatchNorm(2, "batch", mode=mode, momentum=0.9)
        self.up = eqx.nn.ConvTranspose2d(2, 3, 2, stride=2, key=jr.key(1))
        self.head = eqx.nn.Linear(3 * 4 * 6, 2, key=jr.key(2))

    def __call__(self, x, state):
        x, state = self.norm(self.conv(jnp.moveaxis(x, -1, 0)), state)
        return self.head(self.up(x).reshape(-1)), state


class NnxCNN(nnx.Module):
    def __init__(self):
        options = {"rngs": nnx.Rngs(0), "param_dtype": jnp.float64}
        self.conv = nnx.Conv(1, 2, (3, 3), padding="SAME", **options)
        self.norm = nnx.BatchNorm(2, momentum=0.9, **options)
        self.up = nnx.ConvTranspose(
            2, 3, (2, 2), strides=(2, 2), padding="VALID", **options
        )
        self.head = nnx.Linear(3 * 4 * 6, 2, **options)

    def __call__(self, xs):
        xs = self.up(self.norm(self.conv(xs)))
        return self.head(xs.reshape(xs.shape[0], -1))


class EqxTied(eqx.Module):
    embed: eqx.nn.Embedding
    out: jax.Array

    def __init__(self):
        self.embed = eqx.nn.Embedding(5, 3, key=jr.key(0))
        self.out = jnp.ones(5)


class NnxUntied(nnx.Module):
    def __init__(self):
        options = {"rngs": nnx.Rngs(0), "param_dtype": jnp.float64}
        self.embed = nnx.Embed(5, 3, **options)
        self.head = nnx.Linear(3, 5, **options)


class EqxLSTM(eqx.Module):
    cell: eqx.nn.LSTMCell

    def __init__(self):
        self.cell = eqx.nn.LSTMCell(2, 3, key=jr.key(0))


class NnxLSTM(nnx.Module):
    def __init__(self, kind=nnx.LSTMCell):
        self.cell = kind(2, 3, rngs=nnx.Rngs(0), param_dtype=jnp.float64)


def arrays(native):
    return {n: np.asarray(x) for n, x in NativeModel(native).arrays().items()}


def same(left, right):
    """Tells whether two models have equal arrays, bit by bit."""
    ours, theirs = arrays(left), arrays(right)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[n], theirs[n]) and ours[n].dtype == theirs[n].dtype
        for n in ours
    )


def close(a, b):
    return agreement.relative_error(np.asarray(a), np.asarray(b)) < 1e-12


class Bare(eqx.Module):
    w: jax.Array
    b: jax.Array


class NnxDense(nnx.Module):
    def __init__(self, features=3):
        self.w = nnx.Linear(3, features, rngs=nnx.Rngs(0))


class NnxBare(nnx.Module):
    def __init__(self, shape=(3, 3)):
        self.w = nnx.Param(jnp.ones(shape))
        self.b = nnx.Param(jnp.ones(3))


def cnn():
    model, state = eqx.nn.make_with_state(EqxCNN)()
    model, state = fill_equinox((model, state))
    counter = state.get(model.norm.batch_counter)
    return model, state.set(model.norm.batch_counter, counter + 3)


FLATTEN = {"head": (4, 6, 3)}
IMAGES = jr.normal(jr.key(1), (3, 2, 3, 1), jnp.float64)
