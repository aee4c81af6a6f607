"""Move a trained model here from Equinox with `port`, and prove it equal."""

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx

from common import assert_equivalent, port


class Net(nnx.Module):
    """A network for a batch."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 8, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(
            8, momentum=0.9, use_fast_variance=False, rngs=rngs
        )

    def __call__(self, xs):
        return self.norm(self.linear(xs))


def make(key):
    """Returns an untrained network of JAX's default dtype."""
    # NNX creates float32 arrays. This follows JAX's default dtype.
    return jax.tree.map(lambda x: x.astype(float), Net(nnx.Rngs(key)))


def receive(key, source, xs):
    """Returns a module, filled from an Equinox model and state."""
    target = port(source, make(key))
    assert_equivalent(source, target, xs, steps=2)
    return target


def train(key, xs):
    """Returns a module after three steps of SGD."""
    layer_key, weight_key = jr.split(key)
    model = make(layer_key)
    model.linear.kernel[...] = jr.normal(weight_key, (3, 8))
    optimizer = nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param)

    @nnx.jit
    @nnx.grad
    def loss_fn(model):
        return jnp.mean((model(xs) - jnp.sin(xs[:, :1])) ** 2)

    for _ in range(3):
        optimizer.update(model, loss_fn(model))
    return model


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the weight and running mean of a trained model."""
    train_key, data_key = jr.split(key)
    model = train(train_key, jr.normal(data_key, (16, 3)))
    return {"weight": model.linear.kernel[...], "mean": model.norm.mean[...]}
