"""Train in a loop that spends little time outside the compiled program.

A loop over the flat list of arrays rebuilds the objects only in the trace.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

optim = optax.adam(0.1)


def update(model, state, opt_state, xs, ys):
    """Returns the new model, state and optimizer state, and the loss."""

    @eqx.filter_value_and_grad(has_aux=True)
    def loss_fn(model, state):
        batched = jax.vmap(model, (0, None), (0, None), axis_name="batch")
        predictions, state = batched(xs, state)
        return jnp.mean((predictions - ys) ** 2), state

    (loss, state), grads = loss_fn(model, state)
    updates, opt_state = optim.update(grads, opt_state)
    return eqx.apply_updates(model, updates), state, opt_state, loss


def flat_loop(carry, batches):
    """Trains with `jax.jit` and the flat list of arrays of `carry`."""
    arrays, static = eqx.partition(carry, eqx.is_array)
    leaves, treedef = jax.tree.flatten(arrays)

    @jax.jit
    def step(leaves, batch):
        carry = eqx.combine(jax.tree.unflatten(treedef, leaves), static)
        *carry, loss = update(*carry, *batch)
        return jax.tree.leaves(eqx.filter(carry, eqx.is_array)), loss

    losses = []
    for batch in batches:
        leaves, loss = step(leaves, batch)
        losses.append(loss)
    return eqx.combine(jax.tree.unflatten(treedef, leaves), static), losses


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Trains one BatchNorm in the flat loop, and in the usual one."""
    make = eqx.nn.make_with_state(eqx.nn.BatchNorm)
    model, state = make(3, "batch", mode="batch")
    opt_state = optim.init(eqx.filter(model, eqx.is_inexact_array))
    xs = jr.normal(key, (16, 3))
    batches = [(xs, jnp.sin(xs))] * 5
    (flat_model, *_), flat = flat_loop((model, state, opt_state), batches)
    usual, step = [], eqx.filter_jit(update)
    for xs, ys in batches:
        model, state, opt_state, loss = step(model, state, opt_state, xs, ys)
        usual.append(loss)
    return {"losses": jnp.array([flat, usual]), "weight": flat_model.weight}
