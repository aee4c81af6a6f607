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

from common.layouts import Role
from common.protocol import Loss, Settings, Spec
from common.state import MODEL, State
from common.training import optimizers
from common.training.precision import cast, widened
from impl_equinox.accumulation import over_parts
from impl_equinox.canonical import Layouts, abstract
from impl_equinox.per_device import over_groups
from impl_equinox.precision import narrow


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
        settings: Settings,
    ):
        self.model_class = model_class
        self.hyper_parameters = dataclasses.asdict(spec)
        self.spec = spec
        self.loss = loss
        self.metrics = metrics
        self.settings = settings

        model, state = self._abstract(jr.key(0))
        self.layouts = Layouts((model, state))
        self.optimizer = optimizers.NamedOptimizer(
            optimizer,
            self.layouts,
            eqx.filter_eval_shape(eqx.filter, model, eqx.is_inexact_array),
        )

    def init(self, params, buffers, key):
        model, state = self.layouts.write(
            self._abstract(key),
            {**params, **buffers},
            Role.PARAMETER,
            Role.BUFFER,
        )
        opt_state = self.optimizer.init(
            eqx.filter(model, eqx.is_inexact_array)
        )
        return Native(model, state, opt_state, key, jnp.int32(0))

    def step(self, native, batch, *, gradients=False):
        model, state, opt_state, key, step = native
        step_key = jr.fold_in(key, step)
        dtype = self.settings.compute_dtype

        def compute_loss(model, state, batch, key):
            xs, ys = batch
            model = narrow(model, dtype)
            batch_model = jax.vmap(
                model,
                axis_name="batch",
                in_axes=(0, None, None),
                out_axes=(0, None),
            )
            if self.settings.groups > 1:
                batch_model = over_groups(batch_model, self.settings.groups)
            pred_ys, state = batch_model(cast(xs, dtype), state, key)
            pred_ys = widened(pred_ys, dtype)
            loss = self.loss(pred_ys, ys)
            metrics = {k: f(pred_ys, ys) for k, f in self.metrics.items()}
            return loss, (state, {"loss": loss, **metrics})

        value_and_grad = eqx.filter_value_and_grad(compute_loss, has_aux=True)
        if self.settings.accumulate > 1:
            parts = self.settings.accumulate
            value_and_grad = over_parts(value_and_grad, parts)
            compute_loss = over_parts(compute_loss, parts)

        (loss, (new_state, metrics)), grads = value_and_grad(
            model, state, batch, step_key
        )
        params, static = eqx.partition(model, eqx.is_inexact_array)
        updates, opt_state = self.optimizer.update(
            grads,
            opt_state,
            params,
            value=loss,
            grad=grads,
            value_fn=lambda params: compute_loss(
                eqx.combine(params, static), state, batch, step_key
            )[0],
        )
        model = eqx.apply_updates(model, updates)
        native = Native(model, new_state, opt_state, key, step + 1)
        if gradients:
            return native, metrics, self.layouts.to_canonical(grads)
        return native, metrics

    def predict(self, native, xs):
        dtype = self.settings.compute_dtype
        inference_model = eqx.nn.inference_mode(narrow(native.model, dtype))
        batch_model = jax.vmap(inference_model, in_axes=(0, None))
        # discard state
        pred_ys, _ = batch_model(cast(xs, dtype), native.state)
        return widened(pred_ys, dtype)

    def split(self, native):
        arrays, static = eqx.partition(native, eqx.is_array)
        leaves, treedef = jax.tree_util.tree_flatten_with_path(arrays)
        names = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}

        def rebuild(leaves):
            return eqx.combine(jax.tree.unflatten(treedef, leaves), static)

        return names, rebuild

    def state(self, native):
        pair = native.model, native.state
        keys = self.layouts.read(pair, Role.RANDOM_STATE)
        return State(
            params=self.layouts.read(pair, Role.PARAMETER),
            buffers=self.layouts.read(pair, Role.BUFFER),
            constants=self.layouts.read(pair, Role.CONSTANT),
            opt=self.optimizer.read(native.opt_state),
            rng={"key": jr.key_data(native.key)}
            | {MODEL + name: x for name, x in keys.items()},
            step=native.step,
        )

    def load(self, native, state):
        pair = native.model, native.state
        model, model_state = self.layouts.write(pair, state.model)
        return Native(
            model,
            model_state,
            self.optimizer.write(native.opt_state, state.opt),
            jr.wrap_key_data(jnp.asarray(state.rng["key"])),
            jnp.asarray(state.step, native.step.dtype),
        )

    def _abstract(self, key) -> tuple[Any, Any]:
        """Makes model and state with shapes instead of their values."""
        make = eqx.nn.make_with_state(self.model_class)
        return abstract(lambda: make(**self.hyper_parameters, key=key))
