"""Train an LSTM on padded sequences, whose padding has no effect.

`jax.lax.scan` runs the cell over one sequence, and keeps the state where
the input is padding. `jax.vmap` makes this a function of a batch.
"""

import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax


@ft.partial(jax.vmap, in_axes=(None, 0, 0))
def last_state(cell, xs, length):
    """Returns the hidden state after the first `length` inputs."""

    def step(carry, inputs):
        x, is_valid = inputs
        update = ft.partial(jnp.where, is_valid)
        return jax.tree.map(update, cell(x, carry), carry), None

    init = jnp.zeros(cell.hidden_size), jnp.zeros(cell.hidden_size)
    is_valid = jnp.arange(len(xs)) < length
    (h, _), _ = jax.lax.scan(step, init, (xs, is_valid))
    return h


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the hidden states for two kinds of padding."""
    layer_key, key1, key2, key3, data_key = jr.split(key, 5)
    cell = eqx.nn.LSTMCell(3, 4, key=layer_key)
    w1, w2 = jr.normal(key1, (3, 16)), jr.normal(key2, (4, 16))
    cell = eqx.tree_at(lambda c: c.weight_ih, cell, w1.T)
    cell = eqx.tree_at(lambda c: c.weight_hh, cell, w2.T)
    cell = eqx.tree_at(lambda c: c.bias, cell, jr.normal(key3, (16,)))
    xs, lengths = jr.normal(data_key, (3, 6, 3)), jnp.array([2, 6, 4])
    optim = optax.adam(0.1)
    opt_state = optim.init(eqx.filter(cell, eqx.is_inexact_array))

    @eqx.filter_jit
    def train_step(cell, opt_state, xs, lengths):
        @eqx.filter_grad
        def loss_fn(cell):
            h = last_state(cell, xs, lengths)
            return jnp.mean((h - jnp.sin(xs[:, 0, :1])) ** 2)

        grads = loss_fn(cell)
        updates, opt_state = optim.update(grads, opt_state)
        return eqx.apply_updates(cell, updates), opt_state

    for _ in range(5):
        cell, opt_state = train_step(cell, opt_state, xs, lengths)
    padding = jnp.arange(6) >= lengths[:, None]
    ones = jnp.where(padding[..., None], 1.0, xs)
    h1, h2 = last_state(cell, xs, lengths), last_state(cell, ones, lengths)
    return {"states": h1, "states_padded_with_ones": h2}
