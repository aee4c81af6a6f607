"""The backend of a model of the user, in either library."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from common.layouts import Role
from common.native import NativeModel
from common.protocol import Loss, Settings
from common.state import MODEL, State
from common.training import optimizers
from common.training.native_calls import NativeCalls
from common.training.part_optimizers import (
    CARRY,
    PartOptimizer,
    Updates,
    arrays_of,
)

UserStep = Callable[..., tuple[Any, Any, Mapping[str, Any]]]
"""`step(native, carry, batch, *, key, update) -> (native, carry, metrics)`.

A training step that a model brings along, in the library's own idiom:

- `native` is the model, the pair of a model and its state, or the module. The
  step returns the new one; `None` stands for a module updated in place.
- `carry` is whatever the step hands on to the next one, as `build(carry=...)`
  began it: any pytree of arrays. It is part of the State.
- `batch` is `(xs, ys)`, and `key` is the random key of this step.
- `update(name, native, grads) -> native` applies the optimizer of a part.
  `grads` are the gradients with respect to that part.
- `metrics` are scalars by name. `"loss"` is one of them.
"""


class Native(NamedTuple):
    """A run: the arrays that training replaces at every step."""

    arrays: dict[str, Array]
    opt_states: dict[str, optax.OptState]
    carry: Any
    key: PRNGKeyArray
    step: Int[Array, ""]


class NativeBackend:
    """Trains a model of the user as a function of its arrays.

    The library's own object is made inside of the compiled step, so that a
    step costs what hand-written `jax.jit` over arrays costs.

    Attributes:
        name: the library of the model.
        model: the model.
        optimizer: as passed to `build`.
        loss: the loss. A model with a step of its own may have none.
        metrics: the metrics by name.
        user_step: the model's own step, or `None`.
    """

    spec: Any = None

    def __init__(
        self,
        model: NativeModel,
        optimizer: Any,
        loss: Loss | None,
        metrics: Mapping[str, Loss],
        settings: Settings,
        step: UserStep | None = None,
        carry: Any = None,
    ):
        """Makes the optimizers.

        Args:
            model: the model, with its initial values.
            optimizer: an optax transformation, or a dict of them by the
                dotted path of the part that each trains.
            loss: the loss.
            metrics: the metrics by name.
            settings: how the steps are computed.
            step: the model's own step, if it has one.
            carry: what that step carries, at first.

        Raises:
            ValueError: if an optimizer has no parameters, or cannot be
                traced.
        """
        self.name = model.library
        self.model = model
        self.optimizer: Any = optimizer
        self.loss: Any = loss
        self.metrics = metrics
        self.settings = settings
        self.user_step = step
        self._carry = carry
        self._calls = NativeCalls(model, settings)
        by_part = optimizer
        if not isinstance(optimizer, Mapping):
            by_part = {optimizers.OPTIMIZER: optimizer}
        self._parts = {
            part: PartOptimizer(model, part, one)
            for part, one in by_part.items()
        }

    def init(self, params, buffers, key):
        del buffers  # the model has its own, and all arrays of a member
        arrays = {**self.model.arrays(), **params}
        arrays = {n: jnp.asarray(x) for n, x in arrays.items()}
        states = {name: x.init(arrays) for name, x in self._parts.items()}
        carry = arrays_of(self._carry)
        return Native(arrays, states, carry, key, jnp.int32(0))

    def step(self, native, batch, *, gradients: bool = False) -> Any:
        key = jr.fold_in(native.key, native.step)
        if self.user_step is None:
            native, metrics, grads = self._take_step(native, batch, key)
        else:
            native, metrics, grads = self._take_own_step(native, batch, key)
        native = native._replace(step=native.step + 1)
        if gradients:
            return native, metrics, grads
        return native, metrics

    def _take_step(self, native, batch, key):
        (part,) = self._parts.values()
        names = part.names.values()
        average = functools.partial(
            self._calls.average, arrays=native.arrays, batch=batch, key=key
        )

        def compute_loss(params, arrays, batch, key):
            xs, ys = batch
            predictions, arrays = self._calls.forward(
                {**arrays, **params}, xs, key
            )
            loss = self.loss(predictions, ys)
            metrics = {k: f(predictions, ys) for k, f in self.metrics.items()}
            return loss, (arrays, {"loss": loss, **metrics})

        def compute_gradients(arrays, batch, key):
            (_, (arrays, metrics)), grads = jax.value_and_grad(
                compute_loss, has_aux=True
            )({name: arrays[name] for name in names}, arrays, batch, key)
            return arrays, (metrics, grads)

        def value_fn(params):
            def compute_value(arrays, batch, key):
                loss, (arrays, _) = compute_loss(params, arrays, batch, key)
                return arrays, loss

            return average(compute_value)[1]

        arrays, (metrics, grads) = average(compute_gradients)
        params, state = part.update(
            arrays,
            grads,
            native.opt_states[optimizers.OPTIMIZER],
            value=metrics["loss"],
            value_fn=value_fn,
        )
        native = native._replace(
            arrays={**arrays, **params},
            opt_states={optimizers.OPTIMIZER: state},
        )
        return native, metrics, part.canonical(grads)

    def _take_own_step(self, native, batch, key):
        model = self.model.with_arrays(native.arrays)
        update = Updates(self.model, self._parts, native.opt_states)
        step: Any = self.user_step
        result, carry, metrics = _three(
            self.model.name,
            step(model, native.carry, batch, key=key, update=update),
        )
        carry = arrays_of(carry)
        _require_structure(self.model.name, carry, native.carry)
        native = native._replace(
            arrays=self.model.read(model, result),
            opt_states=update.states,
            carry=carry,
        )
        return native, _scalars(self.model.name, metrics), update.gradients

    def predict(self, native, xs):
        predictions, _ = self.model.apply(native.arrays, xs, training=False)
        return predictions

    def split(self, native):
        leaves, treedef = jax.tree_util.tree_flatten_with_path(native)
        arrays = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        return arrays, lambda leaves: jax.tree.unflatten(treedef, leaves)

    def state(self, native):
        model = self.model.with_arrays(native.arrays)
        layouts = self.model.layouts
        opt = optimizers.flatten(native.carry, CARRY)
        for name, part in self._parts.items():
            opt |= part.named.read(native.opt_states[name])
        return State(
            params=layouts.read(model, Role.PARAMETER),
            buffers=layouts.read(model, Role.BUFFER),
            constants=layouts.read(model, Role.CONSTANT),
            opt=opt,
            rng={"key": jr.key_data(native.key)}
            | {
                MODEL + name: x
                for name, x in layouts.read(model, Role.RANDOM_STATE).items()
            },
            step=native.step,
        )

    def load(self, native, state):
        model = self.model.with_arrays(native.arrays)
        model = self.model.layouts.write(model, state.model)
        return Native(
            self.model.read(model),
            {
                name: part.named.write(native.opt_states[name], state.opt)
                for name, part in self._parts.items()
            },
            optimizers.unflatten(native.carry, state.opt, CARRY),
            jr.wrap_key_data(jnp.asarray(state.rng["key"])),
            jnp.asarray(state.step, native.step.dtype),
        )


def _three(name: str, result: Any) -> tuple[Any, Any, Any]:
    """Checks that a model's own step returned three values."""
    if not (isinstance(result, tuple) and len(result) == 3):
        raise TypeError(
            f"step of {name}: got {type(result).__name__}, expected "
            "(native, carry, metrics). Return these three values."
        )
    return result


def _require_structure(name: str, carry: Any, before: Any) -> None:
    """Checks that a model's own step hands on what it was handed."""
    got, want = jax.tree.structure(carry), jax.tree.structure(before)
    if got != want:
        raise TypeError(
            f"carry of {name}: got the structure {got}, expected {want} as "
            "before the step. Return a carry of the same structure."
        )


def _scalars(name: str, metrics: Any) -> dict[str, Any]:
    """Checks the metrics that a model's own step returned."""
    found = {}
    if isinstance(metrics, Mapping):
        found = {key: jnp.asarray(x) for key, x in metrics.items()}
    if "loss" not in found or any(x.shape for x in found.values()):
        got = {key: x.shape for key, x in found.items()} or type(metrics)
        raise TypeError(
            f"step of {name}: got the metrics {got}, expected scalars by "
            'name, "loss" among them. Return a dict of them as the third '
            "value."
        )
    return found
