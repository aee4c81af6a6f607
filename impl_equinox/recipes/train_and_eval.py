"""Train with BatchNorm and Dropout, and evaluate after every step.

A training step returns a new state. An evaluation calls a copy of the model
in inference mode, and discards the state that this call returns.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax


class Net(eqx.Module):
    """A network for one example."""

    linear: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout

    def __init__(self, key):
        self.linear = eqx.nn.Linear(3, 8, use_bias=False, key=key)
        self.norm = eqx.nn.BatchNorm(8, "batch", mode="batch")
        self.dropout = eqx.nn.Dropout(0.2)

    def __call__(self, x, state, key):
        x, state = self.norm(self.linear(x), state)
        return self.dropout(jax.nn.relu(x), key=key), state


@eqx.filter_jit
def loss_fn(model, state, xs, ys, key=None):
    """Returns the loss of a batch, and the new state."""
    batched = jax.vmap(model, (0, None, None), (0, None), axis_name="batch")
    predictions, state = batched(xs, state, key)
    return jnp.mean((predictions - ys) ** 2), state


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the losses of the steps and of the evaluations after them."""
    layer_key, weight_key, data_key, dropout_key = jr.split(key, 4)
    model, state = eqx.nn.make_with_state(Net)(layer_key)
    weight = jr.normal(weight_key, (3, 8)).T
    model = eqx.tree_at(lambda model: model.linear.weight, model, weight)
    # With a saturated counter, inference does not rescale the statistics.
    state = state.set(model.norm.batch_counter, jnp.array(2**30))
    xs = jr.normal(data_key, (16, 3))
    ys = jnp.sin(xs @ jnp.ones((3, 8)))
    optim = optax.sgd(0.1)
    opt_state = optim.init(eqx.filter(model, eqx.is_inexact_array))
    grad = eqx.filter_jit(eqx.filter_value_and_grad(loss_fn, has_aux=True))
    losses = []
    for step_key in jr.split(dropout_key, 10):
        (loss, state), grads = grad(model, state, xs, ys, step_key)
        updates, opt_state = optim.update(grads, opt_state)
        model = eqx.apply_updates(model, updates)
        eval_loss, _ = loss_fn(eqx.nn.inference_mode(model), state, xs, ys)
        losses.append((loss, eval_loss))
    mean, var = state.get(model.norm.batch_state_index)
    return {"losses": jnp.array(losses), "mean": mean, "var": var}
