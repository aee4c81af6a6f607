"""A training step in the style of Flax's documentation.

The module and the optimizer are arguments of a function that `nnx.jit`
compiles, and are updated in place.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from flax import nnx

from impl_flax.backend import Native


def train_step(model, optimizer, x, y):
    """Returns the loss, and updates the model and the optimizer in place."""

    def loss_fn(model):
        return jnp.mean((model(x) - y) ** 2)

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


def jit(
    native: Native, tx: optax.GradientTransformation
) -> Callable[[Any, Any], Any]:
    """Returns a step `(xs, ys) -> loss` that trains the module of `native`."""
    model = native.module
    model.train()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    jit_train_step = nnx.jit(train_step)

    def step(xs, ys):
        return jit_train_step(model, optimizer, xs, ys)

    return step


def cached_partial(
    native: Native, tx: optax.GradientTransformation
) -> Callable[[Any, Any], Any]:
    """Returns the same step, with the arguments flattened only once."""
    model = native.module
    model.train()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    return nnx.cached_partial(nnx.jit(train_step), model, optimizer)


def jit_partial(
    native: Native, tx: optax.GradientTransformation
) -> Callable[[Any, Any], Any]:
    """Returns the same step with `graph=False`: arguments are pytrees."""
    model = native.module
    model.train()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    return nnx.jit_partial(train_step, model, optimizer, graph=False)


CONTENDERS = {
    "nnx.jit": jit,
    "nnx.cached_partial": cached_partial,
    "nnx.jit_partial": jit_partial,
}
