"""Accumulate gradients, and recompute activations.

`optax.MultiSteps` reads the parameters in `update` too, so they are
filtered as they are in `init`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax


class Block(eqx.Module):
    """A residual block that recomputes its activations."""

    weight: jax.Array

    @eqx.filter_checkpoint
    def __call__(self, x, *, key=None):
        return x + jnp.tanh(x @ self.weight)


def loss_fn(model, xs):
    """Returns the loss of a batch."""
    return jnp.mean((jax.vmap(model)(xs) - jnp.sin(xs)) ** 2)


def train(model, optim, batches):
    """Returns the weights after one step for each batch."""

    @eqx.filter_jit
    def train_step(model, opt_state, xs):
        grads = eqx.filter_grad(loss_fn)(model, xs)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = optim.update(grads, opt_state, params)
        return eqx.apply_updates(model, updates), opt_state

    opt_state = optim.init(eqx.filter(model, eqx.is_inexact_array))
    for xs in batches:
        model, opt_state = train_step(model, opt_state, xs)
    return jnp.stack([block.weight for block in model.layers])


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the weights of two runs that must be the same."""
    weight_key, data_key = jr.split(key)
    weights = jr.normal(weight_key, (3, 4, 4))
    model = eqx.nn.Sequential([Block(weight) for weight in weights])
    xs = jr.normal(data_key, (32, 4))
    optim = optax.MultiSteps(optax.adam(0.1), every_k_schedule=4)
    return {
        "accumulated": train(model, optim, xs.reshape(8, 4, 4)),
        "whole": train(model, optax.adam(0.1), xs.reshape(2, 16, 4)),
    }
