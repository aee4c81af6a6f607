"""A residual perceptron whose layers are counted from 1, and from 0.

All hidden layers have the same shape, so nothing but running the models tells
`layer1` from `layer0`. The right model keeps functions and `None` in fields,
and names its first layer like the left model's second.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Layout, Transpose
from tests.pairs.bank import Fault, Pair, Sources

WIDTH, CLASSES = 6, 3


class ResidualMLP(eqx.Module):
    layer1: eqx.nn.Linear
    layer2: eqx.nn.Linear
    layer3: eqx.nn.Linear
    layer4: eqx.nn.Linear
    head: eqx.nn.Linear
    temperature: jax.Array

    def __init__(self, key):
        keys = jr.split(key, 5)
        self.layer1 = eqx.nn.Linear(WIDTH, WIDTH, key=keys[0])
        self.layer2 = eqx.nn.Linear(WIDTH, WIDTH, key=keys[1])
        self.layer3 = eqx.nn.Linear(WIDTH, WIDTH, key=keys[2])
        self.layer4 = eqx.nn.Linear(WIDTH, WIDTH, key=keys[3])
        self.head = eqx.nn.Linear(WIDTH, CLASSES, key=keys[4])
        self.temperature = jnp.array(1.0)

    def __call__(self, x):
        h = x + jax.nn.gelu(self.layer1(x))
        h = h + jax.nn.gelu(self.layer2(h))
        h = h + jax.nn.gelu(self.layer3(h))
        h = h + jax.nn.gelu(self.layer4(h))
        return self.head(h) * self.temperature


class Perceptron(nnx.Module):
    def __init__(self, width, classes, act=nnx.gelu, norm=None, *, rngs):
        self.act = act
        self.norm = norm
        for i in range(4):
            setattr(self, f"layer{i}", nnx.Linear(width, width, rngs=rngs))
        self.layer4 = nnx.Linear(width, classes, rngs=rngs)
        self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, x):
        for i in range(4):
            y = getattr(self, f"layer{i}")(x)
            x = self.act(y) + x
        if self.norm is not None:
            x = self.norm(x)
        return self.scale[...] * self.layer4(x)


def left():
    return ResidualMLP(jr.key(0))


def right():
    return Perceptron(WIDTH, CLASSES, rngs=nnx.Rngs(1))


def inputs():
    return np.random.default_rng(0).normal(size=(4, WIDTH))


def truth(take: Sources) -> dict[str, Layout]:
    made = {"scale": take("temperature")}
    names = {f"layer{i}": f"layer{i + 1}" for i in range(4)}
    for new, old in (names | {"layer4": "head"}).items():
        made[f"{new}.kernel"] = take(f"{old}.weight").then(Transpose((1, 0)))
        made[f"{new}.bias"] = take(f"{old}.bias")
    return made


PAIRS = (
    Pair(
        "layers counted from 1 and from 0",
        __name__,
        left,
        right,
        inputs,
        truth,
        faults=(
            Fault(
                "another activation",
                "left",
                "h = h + jax.nn.gelu(self.layer3(h))",
                "h = h + jax.nn.relu(self.layer3(h))",
            ),
            Fault(
                "missing residual",
                "left",
                "h = h + jax.nn.gelu(self.layer2(h))",
                "h = jax.nn.gelu(self.layer2(h))",
                other="x = self.act(y) + x",
            ),
            Fault(
                "missing scale",
                "right",
                "return self.scale[...] * self.layer4(x)",
                "return self.layer4(x)",
                other="self.head(h) * self.temperature",
                remapped=True,
            ),
            Fault(
                "difference instead of sum",
                "right",
                "x = self.act(y) + x",
                "x = self.act(y) - x",
            ),
        ),
    ),
)
