"""One training step with explicit state: everything in, everything out."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from common.protocol import Loss, Spec
from common.state import State
from common.training import optimizers
from impl_equinox import canonical
from impl_equinox.named import NamedParameters


class Native(NamedTuple):
    """All that training needs, threaded from step to step."""

    model: eqx.Module
    state: eqx.nn.State
    opt_state: optax.OptState
    key: PRNGKeyArray
    step: Int[Array, ""]


class Backend:
    """Trains a spec as Equinox's documentation does."""

    name = "equinox"

    def __init__(
        self,
        spec: Spec,
        model_class: type,
        optimizer: optax.GradientTransformation,
        loss: Loss,
        metrics: Mapping[str, Loss],
    ):
        self.model_class = model_class
        self.hyper_parameters = dataclasses.asdict(spec)
        self.spec = spec
        self.loss = loss
        self.metrics = metrics

        model, state = self._abstract()
        self.parameters = canonical.parameters(model)
        self.buffers = canonical.buffers(model, state)
        self.named = NamedParameters(model)
        self.optimizer = optimizers.NamedOptimizer(
            optimizer,
            self.named,
            eqx.filter_eval_shape(eqx.filter, model, eqx.is_inexact_array),
        )

    def init(self, params, buffers, key):
        model, state = self._abstract()
        model = canonical.write(model, self.parameters, params)
        state = canonical.write(state, self.buffers, buffers)
        opt_state = self.optimizer.init(
            eqx.filter(model, eqx.is_inexact_array)
        )
        return Native(model, state, opt_state, key, jnp.int32(0))

    def step(self, native, batch):
        model, state, opt_state, key, step = native
        xs, ys = batch

        def compute_loss(model, state):
            batch_model = jax.vmap(
                model,
                axis_name="batch",
                in_axes=(0, None, None),
                out_axes=(0, None),
            )
            pred_ys, state = batch_model(xs, state, jr.fold_in(key, step))
            loss = self.loss(pred_ys, ys)
            metrics = {k: f(pred_ys, ys) for k, f in self.metrics.items()}
            return loss, (state, {"loss": loss, **metrics})

        (loss, (new_state, metrics)), grads = eqx.filter_value_and_grad(
            compute_loss, has_aux=True
        )(model, state)
        params, static = eqx.partition(model, eqx.is_inexact_array)
        updates, opt_state = self.optimizer.update(
            grads,
            opt_state,
            params,
            value=loss,
            grad=grads,
            value_fn=lambda p: compute_loss(eqx.combine(p, static), state)[0],
        )
        model = eqx.apply_updates(model, updates)
        return Native(model, new_state, opt_state, key, step + 1), metrics

    def predict(self, native, xs):
        inference_model = eqx.nn.inference_mode(native.model)
        inference_model = eqx.Partial(inference_model, state=native.state)
        pred_ys, _ = jax.vmap(inference_model)(xs)  # discard state
        return pred_ys

    def split(self, native):
        arrays, static = eqx.partition(native, eqx.is_array)
        leaves, treedef = jax.tree_util.tree_flatten_with_path(arrays)
        names = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}

        def rebuild(leaves):
            return eqx.combine(jax.tree.unflatten(treedef, leaves), static)

        return names, rebuild

    def state(self, native):
        params = eqx.filter(native.model, eqx.is_inexact_array)
        return State(
            params=canonical.read(params, self.parameters),
            buffers=canonical.read(native.state, self.buffers),
            opt=self.optimizer.read(native.opt_state),
            rng={"key": jr.key_data(native.key)},
            step=native.step,
        )

    def load(self, native, state):
        return Native(
            canonical.write(native.model, self.parameters, state.params),
            canonical.write(native.state, self.buffers, state.buffers),
            self.optimizer.write(native.opt_state, state.opt),
            jr.wrap_key_data(jnp.asarray(state.rng["key"])),
            jnp.asarray(state.step, native.step.dtype),
        )

    def _abstract(self) -> tuple[Any, Any]:
        """Makes model and state with shapes in place of arrays."""
        return eqx.filter_eval_shape(
            eqx.nn.make_with_state(self.model_class),
            **self.hyper_parameters,
            key=jr.key(0),
        )
