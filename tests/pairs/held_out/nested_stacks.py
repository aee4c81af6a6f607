"""Two nested stacks of layers against a list of stacks; held out.

The left model scans over groups, and within a group over layers, so that its
arrays have two leading axes. The right model has a list of groups, each of
them a stack that `nnx.scan` runs. Both share one linear layer in all groups.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Index, Layout, Transpose
from tests.pairs.bank import Fault, Pair, Sources, linear

WIDTH, GROUPS, LAYERS, CLASSES = 5, 2, 3, 2


class Unit(eqx.Module):
    linear: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __init__(self, key):
        self.linear = eqx.nn.Linear(WIDTH, WIDTH, use_bias=False, key=key)
        self.norm = eqx.nn.LayerNorm(WIDTH)

    def __call__(self, x):
        return x + jax.nn.elu(self.linear(self.norm(x)))


class Stacked(eqx.Module):
    groups: Unit
    gates: jax.Array
    shared: eqx.nn.Linear
    readout: eqx.nn.Linear

    def __init__(self, key):
        k1, k2, k3, k4 = jr.split(key, 4)
        keys = jr.split(k1, (GROUPS, LAYERS))
        self.groups = eqx.filter_vmap(eqx.filter_vmap(Unit))(keys)
        self.gates = jr.normal(k2, (GROUPS, WIDTH))
        self.shared = eqx.nn.Linear(WIDTH, WIDTH, key=k3)
        self.readout = eqx.nn.Linear(WIDTH, CLASSES, key=k4)

    def __call__(self, x):
        arrays, static = eqx.partition(self.groups, eqx.is_array)

        def layer(x, arrays):
            return eqx.combine(arrays, static)(x), None

        def group(x, arrays):
            units, gate = arrays
            x, _ = jax.lax.scan(layer, x, units)
            return jnp.tanh(self.shared(x)) * gate + x, x.mean()

        x, means = jax.lax.scan(group, x, (arrays, self.gates))
        return self.readout(x), means


class Inner(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.fc = nnx.Linear(WIDTH, WIDTH, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return nnx.elu(self.fc(self.norm(x))) + x


class Group(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        @nnx.split_rngs(splits=LAYERS)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def make(rngs: nnx.Rngs):
            return Inner(rngs)

        self.blocks = make(rngs)
        self.gate = nnx.Param(rngs.params.normal((WIDTH,)))

    def __call__(self, x, mix):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(block, x):
            return block(x)

        x = run(self.blocks, x)
        return x, x + self.gate[...] * jnp.tanh(mix(x))


class Universal(nnx.Module):
    def __init__(self, rngs):
        self.mix = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.stages = nnx.List([Group(rngs) for _ in range(GROUPS)])
        self.out = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, x):
        means = []
        for stage in self.stages:
            inner, x = stage(x, self.mix)
            means.append(jnp.mean(inner, axis=-1))
        return self.out(x), jnp.stack(means, axis=-1)


def left():
    return Stacked(jr.key(0))


def right():
    return Universal(nnx.Rngs(1))


def inputs():
    return np.random.default_rng(0).normal(size=(3, WIDTH))


def truth(take: Sources) -> dict[str, Layout]:
    made = linear(take, "shared", "mix") | linear(take, "readout", "out")
    for i in range(GROUPS):
        b, pick = f"stages.{i}", Index(0, i)
        made[f"{b}.gate"] = take("gates").then(pick)
        made[f"{b}.blocks.norm.scale"] = take("groups.norm.weight").then(pick)
        made[f"{b}.blocks.norm.bias"] = take("groups.norm.bias").then(pick)
        made[f"{b}.blocks.fc.kernel"] = take("groups.linear.weight").then(
            pick, Transpose((0, 2, 1))
        )
    return made


PAIRS = (
    Pair(
        "nested stacks against a list of stacks",
        __name__,
        left,
        right,
        inputs,
        truth,
        faults=(
            Fault(
                "another activation",
                "left",
                "return x + jax.nn.elu(self.linear(self.norm(x)))",
                "return x + jax.nn.celu(self.linear(self.norm(x)), 2.0)",
            ),
            Fault(
                "gate on the residual",
                "right",
                "return x, x + self.gate[...] * jnp.tanh(mix(x))",
                "return x, x * self.gate[...] + jnp.tanh(mix(x))",
            ),
            Fault(
                "norm after the layer",
                "right",
                "return nnx.elu(self.fc(self.norm(x))) + x",
                "return nnx.elu(self.norm(self.fc(x))) + x",
            ),
            Fault(
                "mean after the gate",
                "right",
                "means.append(jnp.mean(inner, axis=-1))",
                "means.append(jnp.mean(x, axis=-1))",
            ),
        ),
    ),
)
