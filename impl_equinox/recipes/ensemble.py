"""Train an ensemble, each member with its own statistics and optimizer.

`eqx.filter_vmap` maps over the models, the states and the optimizer states.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

optim = optax.adam(0.1)


@eqx.filter_vmap
def make(key):
    """Returns a member, its state, and the state of its optimizer."""
    layer_key, weight_key = jr.split(key)
    norm = eqx.nn.BatchNorm(3, "batch", mode="batch")
    linear = eqx.nn.Linear(3, 1, use_bias=False, key=layer_key)
    weight = jr.normal(weight_key, (3, 1)).T
    linear = eqx.tree_at(lambda linear: linear.weight, linear, weight)
    model, state = eqx.nn.make_with_state(eqx.nn.Sequential)([norm, linear])
    return model, state, optim.init(eqx.filter(model, eqx.is_inexact_array))


@eqx.filter_jit
@eqx.filter_vmap
def step(model, state, opt_state, xs, ys):
    """Returns the member after one step on its own batch, and its loss."""

    @eqx.filter_value_and_grad(has_aux=True)
    def loss_fn(model, state):
        batched = jax.vmap(model, (0, None), (0, None), axis_name="batch")
        predictions, state = batched(xs, state)
        return jnp.mean((predictions - ys) ** 2), state

    (loss, state), grads = loss_fn(model, state)
    updates, opt_state = optim.update(grads, opt_state)
    return eqx.apply_updates(model, updates), state, opt_state, loss


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Trains four members, and returns what differs between them."""
    model_key, data_key = jr.split(key)
    model, state, opt_state = make(jr.split(model_key, 4))
    xs = jr.normal(data_key, (4, 16, 3)) + 1  # a batch for each member
    ys = xs.sum(-1, keepdims=True)
    losses = []
    for _ in range(5):
        model, state, opt_state, loss = step(model, state, opt_state, xs, ys)
        losses.append(loss)
    means, _ = state.get(model[0].batch_state_index)
    return {
        "losses": jnp.stack(losses),
        "means": means,
        "weights": model[1].weight.mT,
    }
