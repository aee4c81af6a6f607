"""Train on all devices, with statistics over the whole batch.

The batch is sharded, and the rest is replicated. Under `jit`, a mean over the
batch is a mean over the shards of all devices.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec


@nnx.jit
def step(model, optimizer, xs, ys):
    """Updates the model and the optimizer, and returns the loss."""

    def loss_fn(model):
        return jnp.mean((model(xs) - ys) ** 2)

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns losses, statistics and weights after training on all devices."""
    layer_key, weight_key, data_key = jr.split(key, 3)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), (AxisType.Auto,))
    sharded = NamedSharding(mesh, PartitionSpec("data"))
    replicated = NamedSharding(mesh, PartitionSpec())
    rngs = nnx.Rngs(layer_key)
    norm = nnx.BatchNorm(3, use_fast_variance=False, rngs=rngs)
    linear = nnx.Linear(3, 1, use_bias=False, rngs=rngs)
    model = nnx.Sequential(norm, linear)
    # NNX creates float32 arrays. This follows JAX's default dtype.
    model = jax.tree.map(lambda x: x.astype(float), model)
    model.layers[1].kernel[...] = jr.normal(weight_key, (3, 1))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    objects = model, optimizer
    nnx.update(objects, jax.device_put(nnx.state(objects), replicated))
    # Examples in ascending order, so the devices have different means.
    xs = jnp.sort(jr.normal(data_key, (16, 3)), axis=0)
    batch = jax.device_put((xs, xs.sum(1, keepdims=True)), sharded)
    losses = [step(*objects, *batch) for _ in range(5)]
    norm, linear = model.layers
    return {
        "losses": jnp.array(losses),
        "mean": norm.mean[...],
        "var": norm.var[...],
        "weight": linear.kernel[...],
    }
