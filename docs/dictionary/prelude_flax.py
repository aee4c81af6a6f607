"""What the Flax NNX snippets of the dictionary have in common."""

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax.experimental import checkify

key = jax.random.key(0)
weight = jnp.array([1.0, 2.0, 3.0])
x = jnp.arange(3.0)  # one example
xs = jnp.ones((4, 3))  # a batch of four
folder = pathlib.Path(tempfile.mkdtemp())
auto = (jax.sharding.AxisType.Auto,)
mesh = jax.make_mesh((1,), ("data",), axis_types=auto)


class Scale(nnx.Module):
    def __init__(self, weight):
        self.weight = nnx.Param(weight)

    def __call__(self, x):
        return self.weight * x


class Counter(nnx.Module):
    def __init__(self):
        self.count = nnx.BatchStat(jnp.array(0))

    def __call__(self, x):
        self.count[...] += 1
        return self.count * x


def call(model, x):
    return model(x)


def loss(model, x):
    return jnp.sum(model(x) ** 2)
