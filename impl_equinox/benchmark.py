"""A training step in the style of Equinox's documentation.

`eqx.filter_jit` compiles a function that takes the model, its state and the
optimizer state, and returns the updated ones.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from impl_equinox.backend import Native


def compute_loss(model, state, xs, ys):
    """Returns the mean squared error and the updated state."""
    batch_model = jax.vmap(
        model, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    pred_ys, state = batch_model(xs, state)
    loss = jnp.mean((pred_ys - ys) ** 2)
    return loss, state


def filter_jit(
    native: Native, optim: optax.GradientTransformation
) -> Callable[[Any, Any], Any]:
    """Returns a step `(xs, ys) -> loss` that trains the model of `native`."""
    model, state = native.model, native.state
    opt_state = optim.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def make_step(model, state, opt_state, xs, ys):
        (loss, state), grads = eqx.filter_value_and_grad(
            compute_loss, has_aux=True
        )(model, state, xs, ys)
        updates, opt_state = optim.update(grads, opt_state)
        model = eqx.apply_updates(model, updates)
        return model, state, opt_state, loss

    def step(xs, ys):
        nonlocal model, state, opt_state
        model, state, opt_state, loss = make_step(
            model, state, opt_state, xs, ys
        )
        return loss

    return step


CONTENDERS = {"eqx.filter_jit": filter_jit}
