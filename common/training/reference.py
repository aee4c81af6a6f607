"""The reference backend: a spec's `forward` in plain JAX, with optax.

It uses neither library, so it shows which of the two is wrong.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from common.protocol import Arrays, Loss, Settings, Spec
from common.state import State
from common.training import optimizers
from common.training.parts import (
    average_over_parts,
    call_in_groups,
    mean_over_groups,
)
from common.training.precision import cast, widened


class Native(NamedTuple):
    """A run: the arrays that training replaces at every step."""

    params: Arrays
    buffers: Arrays
    opt_state: optax.OptState
    key: PRNGKeyArray
    step: Int[Array, ""]


class Backend:
    """Trains a spec in plain JAX."""

    name = "reference"

    def __init__(
        self,
        spec: Spec,
        model_class: None,
        optimizer: optax.GradientTransformation,
        loss: Loss,
        metrics: Mapping[str, Loss],
        settings: Settings,
    ):
        del model_class  # the spec is the model
        self.spec = spec
        params = {
            name: jax.ShapeDtypeStruct(variable.shape, float)
            for name, variable in spec.variables().items()
            if variable.trainable
        }
        self.optimizer: Any = optimizers.NamedOptimizer(
            optimizer, optimizers.CanonicalLayouts(), params
        )
        self.loss = loss
        self.metrics = metrics
        self.settings = settings
        self._narrow = {
            name
            for name, variable in spec.variables().items()
            if variable.trainable and not variable.wide
        }

    def init(self, params, buffers, key):
        opt_state = self.optimizer.init(params)
        return Native(params, buffers, opt_state, key, jnp.int32(0))

    def step(self, native, batch, *, gradients=False):
        params, buffers, opt_state, key, step = native
        step_key = jr.fold_in(key, step)
        parts = self.settings.accumulate

        def compute_loss(params, buffers, batch, key):
            xs, ys = batch
            predictions, buffers = self._forward(params, buffers, xs, key)
            loss = self.loss(predictions, ys)
            metrics = {k: f(predictions, ys) for k, f in self.metrics.items()}
            return loss, (buffers, {"loss": loss, **metrics})

        def compute_gradients(buffers, batch, key):
            (_, (buffers, metrics)), grads = jax.value_and_grad(
                compute_loss, has_aux=True
            )(params, buffers, batch, key)
            return buffers, (metrics, grads)

        def value_fn(params):
            def compute_value(buffers, batch, key):
                loss, (buffers, _) = compute_loss(params, buffers, batch, key)
                return buffers, loss

            return average_over_parts(
                compute_value, parts, buffers, batch, step_key
            )[1]

        new_buffers, (metrics, grads) = average_over_parts(
            compute_gradients, parts, buffers, batch, step_key
        )
        updates, opt_state = self.optimizer.update(
            grads,
            opt_state,
            params,
            value=metrics["loss"],
            grad=grads,
            value_fn=value_fn,
        )
        params: Any = optax.apply_updates(params, updates)
        native = Native(params, new_buffers, opt_state, key, step + 1)
        if gradients:
            return native, metrics, grads
        return native, metrics

    def _forward(self, params, buffers, xs, key):
        """Computes the predictions of a training batch, and the buffers."""

        def forward(xs, key):
            return self._evaluate(params, buffers, xs, key=key, training=True)

        if self.settings.groups == 1:
            return forward(xs, key)
        predictions, buffers = call_in_groups(
            forward, self.settings.groups, xs, key
        )
        return predictions, mean_over_groups(buffers)

    def predict(self, native, xs):
        predictions, _ = self._evaluate(
            native.params, native.buffers, xs, key=None, training=False
        )
        return predictions

    def _evaluate(self, params, buffers, xs, **options):
        """Evaluates the definition, in the compute dtype if there is one."""
        dtype = self.settings.compute_dtype
        params = {
            name: cast(x, dtype) if name in self._narrow else x
            for name, x in params.items()
        }
        predictions, buffers = self.spec.forward(
            params, buffers, cast(xs, dtype), **options
        )
        return widened(predictions, dtype), buffers

    def split(self, native):
        leaves, treedef = jax.tree_util.tree_flatten_with_path(native)
        arrays = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        return arrays, lambda leaves: jax.tree.unflatten(treedef, leaves)

    def state(self, native):
        return State(
            params=native.params,
            buffers=native.buffers,
            opt=self.optimizer.read(native.opt_state),
            rng={"key": jr.key_data(native.key)},
            step=native.step,
        )

    def load(self, native, state):
        values: Any = Native(
            params=dict(state.params),
            buffers=dict(state.buffers),
            opt_state=self.optimizer.write(native.opt_state, state.opt),
            key=jr.wrap_key_data(state.rng["key"]),
            step=state.step,
        )
        return jax.tree.map(
            lambda old, new: jnp.asarray(new, old.dtype), native, values
        )
