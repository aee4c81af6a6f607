"""Inspect a model, and replace a layer that is found by path.

A model is a pytree, so JAX walks it and gives the paths. `eqx.tree_at`
returns a copy in which a layer is replaced.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr


class Net(eqx.Module):
    """A network for one example."""

    layers: list[eqx.nn.Linear]

    def __init__(self, key):
        keys = jr.split(key, 3)
        self.layers = [eqx.nn.Linear(4, 4, False, key=k) for k in keys]

    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x


def count(model):
    """Returns the number of parameters."""
    params = eqx.filter(model, eqx.is_inexact_array)
    return sum(x.size for x in jax.tree.leaves(params))


def linear_layers(model):
    """Returns the linear layers by their paths."""
    leaves = jax.tree.leaves_with_path(
        model, is_leaf=lambda x: isinstance(x, eqx.nn.Linear)
    )
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in leaves
        if isinstance(leaf, eqx.nn.Linear)
    }


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Prints a model, and replaces its last layer."""
    model_key, weight_key, data_key = jr.split(key, 3)
    net_key, head_key = jr.split(model_key)
    weights, xs = jr.normal(weight_key, (3, 4, 4)), jr.normal(data_key, (5, 4))
    model = eqx.tree_at(
        lambda m: [x.weight for x in m.layers], Net(net_key), list(weights.mT)
    )
    print(model)
    last = linear_layers(model)["layers.2"]
    head = eqx.nn.Linear(4, 2, use_bias=False, key=head_key)
    head = eqx.tree_at(lambda m: m.weight, head, last.weight[:2])
    smaller = eqx.tree_at(lambda m: m.layers[2], model, head)
    counts = jnp.array([count(model), count(smaller)])
    return {"counts": counts, "outputs": jax.vmap(smaller)(xs)}
