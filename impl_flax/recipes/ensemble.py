"""Train an ensemble, each member with its own statistics and optimizer.

`nnx.vmap` maps over the modules and the optimizers, and updates them in place.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx


@nnx.vmap
def make(key):
    """Returns a member and its optimizer."""
    layer_key, weight_key = jr.split(key)
    rngs = nnx.Rngs(layer_key)
    norm = nnx.BatchNorm(3, use_fast_variance=False, rngs=rngs)
    linear = nnx.Linear(3, 1, use_bias=False, rngs=rngs)
    model = nnx.Sequential(norm, linear)
    # NNX creates float32 arrays. This follows JAX's default dtype.
    model = jax.tree.map(lambda x: x.astype(float), model)
    model.layers[1].kernel[...] = jr.normal(weight_key, (3, 1))
    return model, nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)


@nnx.jit
@nnx.vmap
def step(model, optimizer, xs, ys):
    """Updates a member on its own batch, and returns its loss."""

    def loss_fn(model):
        return jnp.mean((model(xs) - ys) ** 2)

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Trains four members, and returns what differs between them."""
    model_key, data_key = jr.split(key)
    model, optimizer = make(jr.split(model_key, 4))
    xs = jr.normal(data_key, (4, 16, 3)) + 1  # a batch for each member
    ys = xs.sum(-1, keepdims=True)
    losses = [step(model, optimizer, xs, ys) for _ in range(5)]
    return {
        "losses": jnp.stack(losses),
        "means": model.layers[0].mean[...],
        "weights": model.layers[1].kernel[...],
    }
