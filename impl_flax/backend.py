"""One training step with mutable state: modules and optimizer change in
place.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx

from common.layouts import Role
from common.protocol import Loss, Settings, Spec
from common.state import MODEL, State
from common.training import optimizers
from common.training.precision import cast, widened
from impl_flax.accumulation import over_parts
from impl_flax.canonical import Layouts, abstract
from impl_flax.per_device import call_in_groups
from impl_flax.precision import set_dtype, takes_dtype


class Native(NamedTuple):
    """All that training needs, each updated in place."""

    module: nnx.Module
    optimizer: nnx.Optimizer
    rngs: nnx.Rngs


class Backend:
    """Trains a spec as Flax's documentation does."""

    name = "flax"

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

        module = self._abstract(jr.key(0))
        self.layouts = Layouts(module)
        self.optimizer: Any = optimizers.NamedOptimizer(
            optimizer,
            self.layouts,
            nnx.as_pure(nnx.state(module, nnx.Param)),
        )

    def init(self, params, buffers, key):
        module = self.layouts.write(
            self._abstract(key),
            {**params, **buffers},
            Role.PARAMETER,
            Role.BUFFER,
        )
        optimizer = nnx.Optimizer(module, self.optimizer, wrt=nnx.Param)
        return Native(module, optimizer, nnx.Rngs(dropout=key))

    def step(self, native, batch, *, gradients=False):
        module, optimizer, rngs = native
        dtype = self.settings.compute_dtype

        def compute_loss(module, batch, rngs):
            xs, ys = batch
            xs = cast(xs, dtype)
            if self.settings.groups > 1:
                pred_ys = call_in_groups(
                    module, xs, rngs, self.settings.groups
                )
            else:
                pred_ys = module(xs, rngs=rngs)
            pred_ys = widened(pred_ys, dtype)
            loss = self.loss(pred_ys, ys)
            metrics = {k: f(pred_ys, ys) for k, f in self.metrics.items()}
            return loss, {"loss": loss, **metrics}

        value_and_grad = nnx.value_and_grad(compute_loss, has_aux=True)
        if self.settings.accumulate > 1:
            parts = self.settings.accumulate
            value_and_grad = over_parts(value_and_grad, parts)
            compute_loss = over_parts(compute_loss, parts)

        train_module = nnx.view(
            module,
            deterministic=False,
            use_running_average=False,
            raise_if_not_found=False,
        )
        step_rngs = rngs.fork()
        # The forward pass updates both. A line search repeats the pass.
        before = nnx.clone((train_module, step_rngs))

        def value_fn(params):
            module, rngs = nnx.clone(before)
            nnx.update(module, params)
            return compute_loss(module, batch, rngs)[0]

        (loss, metrics), grads = value_and_grad(train_module, batch, step_rngs)
        optimizer.update(
            module, grads, value=loss, grad=grads, value_fn=value_fn
        )
        if gradients:
            return (
                native,
                metrics,
                self.layouts.to_canonical(nnx.as_pure(grads)),
            )
        return native, metrics

    def predict(self, native, xs):
        inference_module = nnx.view(
            native.module,
            deterministic=True,
            use_running_average=True,
            raise_if_not_found=False,
        )
        dtype = self.settings.compute_dtype
        return widened(inference_module(cast(xs, dtype)), dtype)

    def split(self, native):
        # A fork is taken at each step, so the stream's count is the step.
        graphdef, count, state = nnx.split(native, _is_step_count, ...)
        leaves, treedef = jax.tree_util.tree_flatten_with_path(state)
        names = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}

        def rebuild(leaves):
            state = jax.tree.unflatten(treedef, leaves)
            native = nnx.merge(graphdef, count, state)
            stream, step = native.rngs.dropout, native.optimizer.step[...]
            stream.count = nnx.RngCount(step, tag=stream.tag)
            return native

        return names, rebuild

    def state(self, native):
        module, optimizer, rngs = native
        keys = self.layouts.read(module, Role.RANDOM_STATE)
        return State(
            params=self.layouts.read(module, Role.PARAMETER),
            buffers=self.layouts.read(module, Role.BUFFER),
            constants=self.layouts.read(module, Role.CONSTANT),
            opt=self.optimizer.read(nnx.as_pure(optimizer.opt_state)),
            rng={"key": jr.key_data(rngs.dropout.key[...])}
            | {MODEL + name: x for name, x in keys.items()},
            step=optimizer.step[...],
        )

    def load(self, native, state):
        module, optimizer, rngs = native
        self.layouts.write(module, state.model)
        opt_state = self.optimizer.write(
            nnx.as_pure(optimizer.opt_state), state.opt
        )
        nnx.update(optimizer.opt_state, nnx.state(opt_state))
        step = jnp.asarray(state.step, jnp.uint32)
        optimizer.step.set_value(step)
        rngs.dropout.key.set_value(
            jr.wrap_key_data(jnp.asarray(state.rng["key"]))
        )
        # A fork is taken at each step, so the stream counts the steps.
        rngs.dropout.count.set_value(step)
        return native

    def _abstract(self, key) -> nnx.Module:
        """Makes the module with shapes instead of its values."""
        options = self.hyper_parameters
        dtype = self.settings.compute_dtype
        if dtype is not None and takes_dtype(self.model_class):
            options = {**options, "dtype": jnp.dtype(dtype)}
        module = abstract(
            lambda: self.model_class(**options, rngs=nnx.Rngs(key))
        )
        if dtype is not None and not takes_dtype(self.model_class):
            set_dtype(module, dtype)
        return module


def _is_step_count(path: tuple, variable: nnx.Variable) -> bool:
    return path[0] == "rngs" and isinstance(variable, nnx.RngCount)
