"""Inspect a model, and replace a layer that is found by path.

A module is a Python object. `nnx.iter_modules` walks it and gives the
paths, and a layer is replaced by assignment.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
from flax import nnx


class Net(nnx.Module):
    """A network for a batch."""

    def __init__(self, rngs):
        self.layers = nnx.List(
            [nnx.Linear(4, 4, use_bias=False, rngs=rngs) for _ in range(3)]
        )

    def __call__(self, xs):
        for layer in self.layers:
            xs = jnp.tanh(layer(xs))
        return xs


def count(model):
    """Returns the number of parameters."""
    params = nnx.state(model, nnx.Param)
    return sum(x.size for x in jax.tree.leaves(params))


def linear_layers(model):
    """Returns the linear layers by their paths."""
    return {
        ".".join(map(str, path)): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, nnx.Linear)
    }


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Prints a model, and replaces its last layer."""
    model_key, weight_key, data_key = jr.split(key, 3)
    weights, xs = jr.normal(weight_key, (3, 4, 4)), jr.normal(data_key, (5, 4))
    rngs = nnx.Rngs(model_key)
    # NNX creates float32 arrays. This follows JAX's default dtype.
    model = jax.tree.map(lambda x: x.astype(float), Net(rngs))
    for layer, weight in zip(model.layers, weights, strict=True):
        layer.kernel[...] = weight
    print(nnx.tabulate(model, xs))
    before = count(model)
    last = linear_layers(model)["layers.2"]
    head = nnx.Linear(4, 2, use_bias=False, param_dtype=float, rngs=rngs)
    head.kernel[...] = last.kernel[:, :2]
    model.layers[2] = head
    counts = jnp.array([before, count(model)])
    return {"counts": counts, "outputs": model(xs)}
