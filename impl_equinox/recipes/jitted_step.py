"""Take jitted training steps with state, and see when the state is lost.

A step returns all that it changes. A caller that drops the returned state
gets no error and the same losses, so compare the states to see the loss.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

optim = optax.sgd(0.1)


@eqx.filter_jit
def step(model, state, opt_state, xs, ys):
    """Returns the new model, state and optimizer state, and the loss."""

    def loss_fn(model, state):
        batched = jax.vmap(model, (0, None), (0, None), axis_name="batch")
        predictions, state = batched(xs, state)
        return jnp.mean((predictions - ys) ** 2), state

    grad = eqx.filter_value_and_grad(loss_fn, has_aux=True)
    (loss, state), grads = grad(model, state)
    updates, opt_state = optim.update(grads, opt_state)
    return eqx.apply_updates(model, updates), state, opt_state, loss


def train(model, state, xs, ys, *, stale):
    """Takes five steps, all with the first state if `stale`."""
    opt_state = optim.init(eqx.filter(model, eqx.is_inexact_array))
    loss, first_state = None, state
    for _ in range(5):
        model, new_state, opt_state, loss = step(
            model, state, opt_state, xs, ys
        )
        state = state if stale else new_state
    mean, _ = state.get(model[0].batch_state_index)
    lost = eqx.tree_equal(state, first_state)
    return {"loss": loss, "mean": mean, "lost": lost}


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Trains correctly, and with a stale state; returns both results."""
    layer_key, weight_key, data_key = jr.split(key, 3)
    norm = eqx.nn.BatchNorm(3, "batch", mode="batch")
    linear = eqx.nn.Linear(3, 1, use_bias=False, key=layer_key)
    weight = jr.normal(weight_key, (3, 1)).T
    linear = eqx.tree_at(lambda linear: linear.weight, linear, weight)
    model, state = eqx.nn.make_with_state(eqx.nn.Sequential)([norm, linear])
    xs = jr.normal(data_key, (16, 3)) + 1
    ys = xs.sum(1, keepdims=True)
    right = train(model, state, xs, ys, stale=False)
    wrong = train(model, state, xs, ys, stale=True)
    return jax.tree.map(lambda *results: jnp.stack(results), right, wrong)
