"""The benchmark's baseline: a hand-written training step in plain JAX.

The step is one jitted function over a flat list of donated arrays. It calls
the `forward` of a spec and an optax optimizer.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jax import lax

from common.protocol import Spec
from common.training import data as data_module
from common.training import losses
from common.training.loop import loops_slowly
from common.training.reference import Native

SLOW_SCAN_STEPS = 4


def make_step(spec: Spec, native: Native) -> tuple[list[Any], Callable]:
    """Makes a training step over a flat list of arrays.

    Args:
        spec: the model.
        native: the initial values, from the reference backend.

    Returns:
        The list and the step, `(leaves, xs, ys, key) -> (leaves, loss)`.
    """
    optimizer = spec.optimizer()
    loss_function = losses.find_loss(spec.loss)
    leaves, treedef = jax.tree.flatten(
        (native.params, native.buffers, native.opt_state)
    )

    def step(leaves, xs, ys, key=None):
        params, buffers, opt_state = jax.tree.unflatten(treedef, leaves)

        def compute_loss(params):
            predictions, new_buffers = spec.forward(
                params, buffers, xs, key=key, training=True
            )
            return loss_function(predictions, ys), new_buffers

        (loss, buffers), grads = jax.value_and_grad(
            compute_loss, has_aux=True
        )(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return jax.tree.leaves((params, buffers, opt_state)), loss

    return leaves, step


class Fit:
    """A hand-written `fit` that uses the trainer's data order.

    Runs all steps in one `lax.scan`, or dispatches each step from Python.

    Attributes:
        steps: the number of training steps in one call.
    """

    def __init__(
        self,
        spec: Spec,
        native: Native,
        data: Any,
        *,
        epochs: int,
        batch_size: int,
        scan: bool,
    ):
        self._key_data = np.asarray(jr.key_data(native.key))
        self._data = data
        self._epochs = epochs
        self._epoch = self._done = 0
        self._batch_size = batch_size
        self._scan = scan
        self._leaves, step = make_step(spec, native)

        def step_at(leaves, data, row, number):
            xs, ys = jax.tree.map(lambda x: jnp.take(x, row, axis=0), data)
            return step(leaves, xs, ys, jr.fold_in(native.key, number))

        def scan_all(leaves, data, rows, numbers):
            def body(leaves, at):
                return step_at(leaves, data, *at)

            return lax.scan(body, leaves, (rows, numbers))

        self.steps = epochs * (len(data[0]) // batch_size)
        if scan and loops_slowly(scan_all, self._leaves, *self._rows(0)):
            self.steps = min(self.steps, SLOW_SCAN_STEPS)
        self._jitted = jax.jit(scan_all if scan else step_at, donate_argnums=0)

    def __call__(self) -> np.ndarray:
        """Continues training and returns the loss of every step."""
        data, rows, numbers = self._rows(self._epoch)
        self._epoch += self._epochs
        self._done += self.steps
        if self._scan:
            self._leaves, run = self._jitted(self._leaves, data, rows, numbers)
            return np.asarray(run)
        run = []
        for row, number in zip(rows, numbers, strict=True):
            self._leaves, loss = self._jitted(self._leaves, data, row, number)
            run.append(loss)
        return np.asarray(run)

    def _rows(self, epoch: int) -> tuple[Any, np.ndarray, np.ndarray]:
        """Returns the data, and the examples and number of each step."""
        data = jax.tree.map(jnp.asarray, self._data)
        start = data_module.Place(epoch, 0)
        end = data_module.Place(epoch + self._epochs, 0)
        rows, _ = data_module.take(
            self._key_data,
            start,
            end,
            len(data[0]),
            self._batch_size,
            self.steps,
        )
        return data, rows, self._done + np.arange(len(rows), dtype=np.int32)
