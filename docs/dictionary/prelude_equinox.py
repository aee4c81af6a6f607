"""What the Equinox snippets of the dictionary have in common."""

import pathlib
import tempfile

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

key = jax.random.key(0)
weight = jnp.array([1.0, 2.0, 3.0])
x = jnp.arange(3.0)  # one example
xs = jnp.ones((4, 3))  # a batch of four
folder = pathlib.Path(tempfile.mkdtemp())
auto = (jax.sharding.AxisType.Auto,)
mesh = jax.make_mesh((1,), ("data",), axis_types=auto)


class Scale(eqx.Module):
    weight: jax.Array

    def __call__(self, x, *, key=None):
        return self.weight * x


class Counter(eqx.Module):
    count: eqx.nn.StateIndex

    def __init__(self):
        self.count = eqx.nn.StateIndex(jnp.array(0))

    def __call__(self, x, state):
        count = state.get(self.count) + 1
        return count * x, state.set(self.count, count)


def call(model, x):
    return model(x)


def loss(model, x):
    return jnp.sum(model(x) ** 2)
