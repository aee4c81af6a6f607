"""Scan over stacked layers, each with its own statistics.

`eqx.filter_vmap` stacks the layers and their states. A scan takes one slice of
both at each iteration, and stacks the new states.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr


class Block(eqx.Module):
    """A residual block for one example."""

    norm: eqx.nn.BatchNorm
    linear: eqx.nn.Linear

    def __init__(self, key):
        layer_key, weight_key = jr.split(key)
        self.norm = eqx.nn.BatchNorm(3, "batch", mode="batch")
        linear = eqx.nn.Linear(3, 3, use_bias=False, key=layer_key)
        weight = jr.normal(weight_key, (3, 3)).T
        self.linear = eqx.tree_at(lambda linear: linear.weight, linear, weight)

    def __call__(self, x, state):
        y, state = self.norm(x, state)
        return x + jax.nn.relu(self.linear(y)), state


def forward(blocks, states, x):
    """Calls all blocks on one example, and returns their new states."""
    arrays, static = eqx.partition(blocks, eqx.is_array)

    def call(x, slices):
        arrays, state = slices
        return eqx.combine(arrays, static)(x, state)

    return jax.lax.scan(call, x, (arrays, states))


@eqx.filter_jit
@eqx.filter_value_and_grad(has_aux=True)
def loss_fn(blocks, states, xs):
    """Returns the mean square of the outputs, and the new states."""
    batched = jax.vmap(forward, (None, None, 0), (0, None), axis_name="batch")
    ys, states = batched(blocks, states, xs)
    return jnp.mean(ys**2), states


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the loss, gradients and statistics of four layers."""
    model_key, data_key = jr.split(key)
    make = eqx.filter_vmap(eqx.nn.make_with_state(Block))
    blocks, states = make(jr.split(model_key, 4))
    xs = jr.normal(data_key, (16, 3))
    (_, states), _ = loss_fn(blocks, states, xs)
    (loss, states), grads = loss_fn(blocks, states, xs)
    means, _ = states.get(blocks.norm.batch_state_index)
    return {"loss": loss, "means": means, "grads": grads.linear.weight.mT}
