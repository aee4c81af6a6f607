"""Save a run to a file, restore it, and continue where it stopped.

Equinox writes the leaves of a pytree in order, and reads them into another.
"""

import tempfile

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

optim = optax.adam(0.1)


def make(key):
    """Returns a model, its state, an optimizer state, a key and a count."""
    make_norm = eqx.nn.make_with_state(eqx.nn.BatchNorm)
    model, state = make_norm(3, "batch", mode="batch")
    opt_state = optim.init(eqx.filter(model, eqx.is_inexact_array))
    return model, state, opt_state, jr.key_data(key), jnp.array(0)


@eqx.filter_jit
def step(xs, model, state, opt_state, key_data, count):
    """Returns the run after one step on noisy inputs, and the loss."""
    noise = jr.normal(jr.fold_in(jr.wrap_key_data(key_data), count), xs.shape)

    @eqx.filter_value_and_grad(has_aux=True)
    def loss_fn(model, state):
        batched = jax.vmap(model, (0, None), (0, None), axis_name="batch")
        predictions, state = batched(xs + noise, state)
        return jnp.mean((predictions - xs) ** 2), state

    (loss, state), grads = loss_fn(model, state)
    updates, opt_state = optim.update(grads, opt_state)
    model = eqx.apply_updates(model, updates)
    return (model, state, opt_state, key_data, count + 1), loss


def train(carry, xs):
    """Returns the run after three steps, and their losses."""
    losses = []
    for _ in range(3):
        carry, loss = step(xs, *carry)
        losses.append(loss)
    return carry, losses


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the losses of the run that is saved, and of the restored one."""
    xs = jnp.linspace(0, 1, 48).reshape(16, 3)
    saved, losses = train(make(key), xs)
    like = eqx.filter_eval_shape(make, key)
    with tempfile.NamedTemporaryFile(suffix=".eqx") as file:
        eqx.tree_serialise_leaves(file.name, saved)
        restored = eqx.tree_deserialise_leaves(file.name, like)
    runs = [losses + train(carry, xs)[1] for carry in (saved, restored)]
    return {"losses": jnp.array(runs)}
