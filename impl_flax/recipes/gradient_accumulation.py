"""Accumulate gradients, and recompute activations.

`nnx.Optimizer` takes `optax.MultiSteps` like any transformation, and
`nnx.remat` takes a method.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx


class Block(nnx.Module):
    """A residual block that recomputes its activations."""

    def __init__(self, weight):
        self.weight = nnx.Param(weight)

    @nnx.remat
    def __call__(self, xs):
        return xs + jnp.tanh(xs @ self.weight)


def loss_fn(model, xs):
    """Returns the loss of a batch."""
    return jnp.mean((model(xs) - jnp.sin(xs)) ** 2)


def train(model, tx, batches):
    """Returns the weights after one step for each batch."""
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, xs):
        optimizer.update(model, nnx.grad(loss_fn)(model, xs))

    for xs in batches:
        train_step(model, optimizer, xs)
    return jnp.stack([block.weight[...] for block in model.layers])


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the weights of two runs that must be the same."""
    weight_key, data_key = jr.split(key)
    weights = jr.normal(weight_key, (3, 4, 4))
    model = nnx.Sequential(*[Block(weight) for weight in weights])
    xs = jr.normal(data_key, (32, 4))
    tx = optax.MultiSteps(optax.adam(0.1), every_k_schedule=4)
    return {
        "accumulated": train(nnx.clone(model), tx, xs.reshape(8, 4, 4)),
        "whole": train(model, optax.adam(0.1), xs.reshape(2, 16, 4)),
    }
