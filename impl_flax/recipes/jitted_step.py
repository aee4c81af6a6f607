"""Take jitted training steps with state, and see when the state is lost.

`nnx.jit` updates the caller's Variables. `jax.jit` takes the same module, and
drops the updates: no error and the same losses, so compare the statistics.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx


def loss_fn(model, xs, ys):
    """Returns the loss of a batch, and updates the statistics."""
    return jnp.mean((model(xs) - ys) ** 2)


def train(model, xs, ys, *, jit):
    """Takes five steps, whose loss and gradients `jit` compiles."""
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    value_and_grad = jit(nnx.value_and_grad(loss_fn))

    @nnx.jit
    def step(model, optimizer, xs, ys):
        loss, grads = value_and_grad(model, xs, ys)
        optimizer.update(model, grads)
        return loss

    first = nnx.as_pure(nnx.state(model, nnx.BatchStat))
    losses = [step(model, optimizer, xs, ys) for _ in range(5)]
    last = nnx.as_pure(nnx.state(model, nnx.BatchStat))
    equal = jax.tree.leaves(jax.tree.map(jnp.array_equal, first, last))
    return {
        "loss": losses[-1],
        "mean": last["layers"][0]["mean"],
        "lost": jnp.all(jnp.array(equal)),
    }


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Trains correctly, and with `jax.jit`; returns both results."""
    layer_key, weight_key, data_key = jr.split(key, 3)
    rngs = nnx.Rngs(layer_key)
    norm = nnx.BatchNorm(3, use_fast_variance=False, rngs=rngs)
    linear = nnx.Linear(3, 1, use_bias=False, rngs=rngs)
    model = nnx.Sequential(norm, linear)
    # NNX creates float32 arrays. This follows JAX's default dtype.
    model = jax.tree.map(lambda x: x.astype(float), model)
    model.layers[1].kernel[...] = jr.normal(weight_key, (3, 1))
    xs = jr.normal(data_key, (16, 3)) + 1
    ys = xs.sum(1, keepdims=True)
    right = train(nnx.clone(model), xs, ys, jit=nnx.jit)
    wrong = train(model, xs, ys, jit=jax.jit)
    return jax.tree.map(lambda *results: jnp.stack(results), right, wrong)
