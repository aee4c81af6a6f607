"""Train with BatchNorm and Dropout, and evaluate after every step.

A training step updates the model and its statistics in place. An evaluation
calls a view of the model, which has other flags and the same Variables.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx


class Net(nnx.Module):
    """A network for a batch."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 8, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(8, use_fast_variance=False, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, broadcast_dims=(0,))

    def __call__(self, xs, rngs=None):
        xs = self.norm(self.linear(xs))
        return self.dropout(nnx.relu(xs), rngs=rngs)


@nnx.jit
def loss_fn(model, xs, ys, rngs=None):
    """Returns the loss of a batch."""
    return jnp.mean((model(xs, rngs) - ys) ** 2)


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the losses of the steps and of the evaluations after them."""
    layer_key, weight_key, data_key, dropout_key = jr.split(key, 4)
    # NNX creates float32 arrays. This follows JAX's default dtype.
    model = jax.tree.map(lambda x: x.astype(float), Net(nnx.Rngs(layer_key)))
    model.linear.kernel[...] = jr.normal(weight_key, (3, 8))
    eval_model = nnx.view(model, deterministic=True, use_running_average=True)
    xs = jr.normal(data_key, (16, 3))
    ys = jnp.sin(xs @ jnp.ones((3, 8)))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    rngs = nnx.Rngs(dropout=dropout_key)
    grad = nnx.jit(nnx.value_and_grad(loss_fn))
    losses = []
    for _ in range(10):
        loss, grads = grad(model, xs, ys, rngs)
        optimizer.update(model, grads)
        losses.append((loss, loss_fn(eval_model, xs, ys)))
    mean, var = model.norm.mean[...], model.norm.var[...]
    return {"losses": jnp.array(losses), "mean": mean, "var": var}
