"""Scan over stacked layers, each with its own statistics.

`nnx.vmap` stacks the layers. `nnx.scan` takes one slice of them at each
iteration, and writes the updates of its Variables back.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
from flax import nnx


class Block(nnx.Module):
    """A residual block for a batch."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, use_fast_variance=False, rngs=rngs)
        self.linear = nnx.Linear(3, 3, use_bias=False, rngs=rngs)

    def __call__(self, xs):
        return xs + nnx.relu(self.linear(self.norm(xs)))


@nnx.vmap
def make(key):
    """Returns a block."""
    layer_key, weight_key = jr.split(key)
    # NNX creates float32 arrays. This follows JAX's default dtype.
    block = jax.tree.map(lambda x: x.astype(float), Block(nnx.Rngs(layer_key)))
    block.linear.kernel[...] = jr.normal(weight_key, (3, 3))
    return block


@nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
def forward(block, xs):
    """Calls all blocks on a batch, and updates their statistics."""
    return block(xs)


@nnx.jit
def loss_fn(blocks, xs):
    """Returns the mean square of the outputs."""
    return jnp.mean(forward(blocks, xs) ** 2)


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns losses, gradients and statistics of four layers."""
    model_key, data_key = jr.split(key)
    blocks = make(jr.split(model_key, 4))
    xs = jr.normal(data_key, (16, 3))
    value_and_grad = nnx.jit(nnx.value_and_grad(loss_fn))
    value_and_grad(blocks, xs)
    loss, grads = value_and_grad(blocks, xs)
    return {
        "loss": loss,
        "means": blocks.norm.mean[...],
        "grads": grads["linear"]["kernel"][...],
    }
