"""A training step as Flax's documentation writes it: module and optimizer are
arguments of `nnx.jit`, which writes their new values back into them.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from flax import nnx

from impl_flax.backend import Native


def train_step(model, optimizer, x, y):
    """Returns the loss; model and optimizer change in place."""

    def loss_fn(model):
        return jnp.mean((model(x) - y) ** 2)

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


def jit(
    native: Native, tx: optax.GradientTransformation
) -> Callable[[Any, Any], Any]:
    """Returns `(xs, ys) -> loss`, which trains the module of `native`."""
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
    """Returns the same step, which walks the objects only once."""
    model = native.module
    model.train()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    return nnx.cached_partial(nnx.jit(train_step), model, optimizer)


def jit_partial(
    native: Native, tx: optax.GradientTransformation
) -> Callable[[Any, Any], Any]:
    """Returns the same step on trees, the mode that Flax is moving to."""
    model = native.module
    model.train()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    return nnx.jit_partial(train_step, model, optimizer, graph=False)


CONTENDERS = {
    "nnx.jit": jit,
    "nnx.cached_partial": cached_partial,
    "nnx.jit_partial": jit_partial,
}
