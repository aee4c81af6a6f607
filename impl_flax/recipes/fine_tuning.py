"""Fine-tune the head of a model, and keep the rest as it is.

A filter says what is trained, by type and by path. `nnx.DiffState` passes
this filter to `nnx.grad`, and `wrt` passes it to the optimizer.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx


class Net(nnx.Module):
    """A trained encoder, and a head for a new task."""

    def __init__(self, rngs):
        self.encoder = nnx.Linear(3, 8, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, 1, use_bias=False, rngs=rngs)

    def __call__(self, xs):
        return self.head(nnx.relu(self.norm(self.encoder(xs))))


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the weights after five steps."""
    key1, key2, key3, data_key = jr.split(key, 4)
    # NNX creates float32 arrays. This follows JAX's default dtype.
    model = jax.tree.map(lambda x: x.astype(float), Net(nnx.Rngs(key1)))
    model.encoder.kernel[...] = jr.normal(key2, (3, 8))
    model.head.kernel[...] = jr.normal(key3, (8, 1))
    model = nnx.view(model, use_running_average=True)  # freezes BatchNorm
    is_trained = nnx.All(nnx.Param, nnx.PathContains("head"))
    optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=is_trained)
    xs = jr.normal(data_key, (16, 3))

    @nnx.jit
    def train_step(model, optimizer, xs):
        def loss_fn(model):
            return jnp.mean((model(xs) - jnp.sin(xs[:, :1])) ** 2)

        trained = nnx.DiffState(0, is_trained)
        grads = nnx.grad(loss_fn, argnums=trained)(model)
        optimizer.update(model, grads)

    for _ in range(5):
        train_step(model, optimizer, xs)
    encoder, head = model.encoder.kernel[...], model.head.kernel[...]
    return {"encoder": encoder, "head": head}
