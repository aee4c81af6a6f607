"""Compute in bfloat16, with float32 parameters and statistics.

A layer stores its parameters in `param_dtype`, and casts them and its
inputs to `dtype`. The statistics of BatchNorm are always float32.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx


class Net(nnx.Module):
    """A network for a batch."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(
            3, 8, use_bias=False, dtype=jnp.bfloat16, rngs=rngs
        )
        self.norm = nnx.BatchNorm(
            8, dtype=jnp.float32, use_fast_variance=False, rngs=rngs
        )

    def __call__(self, xs):
        return self.norm(self.linear(xs))


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns statistics and weights, which are float32."""
    layer_key, weight_key, data_key = jr.split(key, 3)
    model = Net(nnx.Rngs(layer_key))
    weight = jr.normal(weight_key, (3, 8), jnp.float32)
    model.linear.kernel[...] = weight
    xs = jr.normal(data_key, (16, 3), jnp.float32)
    optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, xs):
        def loss_fn(model):
            return jnp.mean((model(xs) - jnp.sin(xs[:, :1])) ** 2)

        optimizer.update(model, nnx.grad(loss_fn)(model))

    for _ in range(5):
        train_step(model, optimizer, xs)
    mean, weight = model.norm.mean[...], model.linear.kernel[...]
    return {"mean": mean, "weight": weight}
