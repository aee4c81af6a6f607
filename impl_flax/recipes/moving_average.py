"""Keep a moving average of a model, and a target network.

`nnx.EMA` updates Variables of its own in place, and `apply_to` returns a
model that shares them. The target network is a clone.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx


def predict(model, xs):
    """Returns the predictions of a model."""
    return nnx.view(model, use_running_average=True)(xs)


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns predictions of the averaged model and of the target."""
    layer_key, weight_key, data_key = jr.split(key, 3)
    rngs = nnx.Rngs(layer_key)
    model = nnx.Sequential(
        nnx.Linear(3, 3, use_bias=False, rngs=rngs),
        nnx.BatchNorm(3, momentum=0.9, use_fast_variance=False, rngs=rngs),
    )
    # NNX creates float32 arrays. This follows JAX's default dtype.
    model = jax.tree.map(lambda x: x.astype(float), model)
    model.layers[0].kernel[...] = jr.normal(weight_key, (3, 3))
    xs = jr.normal(data_key, (16, 3))
    optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)
    ema = nnx.EMA(model, decay=0.9)
    averaged = ema.apply_to(model)
    target = nnx.clone(model)

    @nnx.jit
    def train_step(model, optimizer, ema, xs):
        def loss_fn(model):
            return jnp.mean((model(xs) - jnp.sin(xs)) ** 2)

        optimizer.update(model, nnx.grad(loss_fn)(model))
        ema.update(model)

    for step in range(6):
        train_step(model, optimizer, ema, xs)
        if step % 4 == 3:
            nnx.update(target, nnx.state(model))
    return {"averaged": predict(averaged, xs), "target": predict(target, xs)}
