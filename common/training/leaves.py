"""A native object as the flat list of arrays that a jitted step takes."""

import collections
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from common.environment import flag
from common.layouts.model import is_key
from common.protocol import Arrays, Backend, Metrics, Spec
from common.state import State


def initial_values(
    spec: Spec, key: PRNGKeyArray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns a spec's initial parameters and buffers, in float32.

    Every backend starts from these values, in either dtype.
    """
    with jax.enable_x64(False), jax.default_matmul_precision("highest"):
        if type(spec).init is not Spec.init:
            return jax.device_get(_init(spec, key))
        drawn = jax.device_get(_init_groups(spec, key))
    values = {
        name: np.asarray(x)
        for names, found in zip(_groups(spec), drawn, strict=True)
        for name, x in zip(names, found, strict=True)
    }
    params, buffers = {}, {}
    for name, variable in sorted(spec.variables().items()):
        group = params if variable.trainable else buffers
        group[name] = values[name]
    return params, buffers


def _groups(spec: Spec) -> list[list[str]]:
    """Returns the names of the variables that are drawn together.

    A program that draws each of the hundreds of a deep model on its own would
    compile slowly.
    """
    groups = collections.defaultdict(list)
    for name, variable in spec.variables().items():
        groups[variable.init, variable.shape].append(name)
    return list(groups.values())


@functools.partial(jax.jit, static_argnums=0)
def _init_groups(spec: Spec, key: PRNGKeyArray) -> list[Array]:
    """Draws what `Spec.init` does, with equal variables stacked."""
    variables = spec.variables()
    keys = jr.split(key, len(variables))
    numbers = {name: i for i, name in enumerate(variables)}

    def draw(names):
        variable = variables[names[0]]

        def one(key):
            return variable.init(key, variable.shape)

        return jax.vmap(one)(keys[jnp.array([numbers[n] for n in names])])

    return [draw(names) for names in _groups(spec)]


@functools.partial(jax.jit, static_argnums=0)
def _init(spec: Spec, key: PRNGKeyArray) -> tuple[Arrays, Arrays]:
    return spec.init(key)


def copy_leaves(leaves: Iterable[Array]) -> list[Array]:
    """Returns strongly typed copies that are safe to donate."""
    return list(map(_copy, leaves))


def _copy(x: Array) -> Array:
    if x.weak_type:
        return jnp.array(x, x.dtype, copy=True)
    # Compiles nothing. Without a sharding, an array stays uncommitted.
    split = len(x.sharding.device_set) > 1
    return jax.device_put(x, x.sharding if split else None, may_alias=False)


def unwrap_keys(arrays: Mapping[str, Any]) -> list[Any]:
    """Returns the arrays in order, with typed PRNG keys as their key data.

    A typed key costs Python time at every call of a jitted function.
    """
    return [jr.key_data(x) if is_key(x) else x for x in arrays.values()]


NARROWED = {np.dtype("int64"): "int32", np.dtype("uint64"): "uint32"}


def as_arrays(batch: Any) -> Any:
    """Returns a batch as arrays, with 64-bit integers only under x64.

    JAX narrows those of NumPy itself, and warns of its own.
    """
    narrow = {} if flag("jax_enable_x64") else NARROWED

    def convert(x):
        x = jnp.asarray(x)
        return x.astype(narrow.get(x.dtype, x.dtype))

    return jax.tree.map(convert, batch)


class PureFunctions:
    """The methods of a backend as pure functions of flat leaves.

    They may be transformed and jitted. None of them sets the x64 mode: the
    caller traces them in the mode of the model's dtype.
    """

    def __init__(self, backend: Backend, native: Any):
        """Makes the functions.

        Args:
            backend: the backend.
            native: a native object of it, whose structure, shapes and dtypes
                are those of all leaves that the functions take and return.
        """
        self._backend = backend
        arrays, self._rebuild = backend.split(native)
        self._are_keys = [is_key(x) for x in arrays.values()]
        self._types = {
            name: (x.shape, x.dtype)
            for name, x in zip(arrays, unwrap_keys(arrays), strict=True)
        }

    @property
    def stacked(self) -> bool:
        """Whether some leaves hold the arrays of several layers."""
        layouts = getattr(self._backend, "layouts", None)
        return layouts is not None and bool(layouts.stacks)

    @property
    def paths(self) -> list[str]:
        """The native path of each leaf."""
        return list(self._types)

    def rebuild(self, leaves: Sequence[Any]) -> Any:
        """Returns the native object that holds these leaves."""
        return self._rebuild(
            [
                jr.wrap_key_data(x) if keyed else x
                for x, keyed in zip(leaves, self._are_keys, strict=True)
            ]
        )

    def flatten(self, native: Any) -> list[Any]:
        """Inverts `rebuild`."""
        return unwrap_keys(self._backend.split(native)[0])

    def step(
        self, leaves: Sequence[Any], batch: Any
    ) -> tuple[list[Array], Metrics]:
        """Takes a training step."""
        batch = as_arrays(batch)
        native, metrics = self._backend.step(self.rebuild(leaves), batch)
        return self._require_types(self.flatten(native)), metrics

    def step_with_gradients(
        self, leaves: Sequence[Any], batch: Any
    ) -> tuple[list[Array], Metrics, Arrays]:
        """Takes a training step and returns its gradients too."""
        batch = as_arrays(batch)
        native, metrics, gradients = self._backend.step(
            self.rebuild(leaves), batch, gradients=True
        )
        return self._require_types(self.flatten(native)), metrics, gradients

    def predict(self, leaves: Sequence[Any], xs: Any) -> Any:
        """Runs the model in inference mode."""
        xs = as_arrays(xs)
        return self._backend.predict(self.rebuild(leaves), xs)

    def evaluate(self, leaves: Sequence[Any], batch: Any) -> Metrics:
        """Computes the loss and the metrics in inference mode."""
        xs, ys = as_arrays(batch)
        predictions = self.predict(leaves, xs)
        metrics = {"loss": self._backend.loss, **self._backend.metrics}
        return {
            name: f(predictions, ys)
            for name, f in metrics.items()
            if f is not None  # the loss of a model with a step of its own
        }

    def state(self, leaves: Sequence[Any]) -> dict[str, Any]:
        """Returns the arrays of the State, as `State.flat` does."""
        return self._backend.state(self.rebuild(leaves)).flat()

    def load(
        self, leaves: Sequence[Any], arrays: Mapping[str, Any]
    ) -> list[Array]:
        """Returns the leaves that hold the arrays of a State."""
        state = State.from_flat(arrays)
        native = self._backend.load(self.rebuild(leaves), state)
        # An unmodified input would alias the caller's buffer.
        return list(map(jnp.copy, self.flatten(native)))

    def _require_types(self, leaves: list[Array]) -> list[Array]:
        for (name, (shape, dtype)), x in zip(
            self._types.items(), leaves, strict=True
        ):
            if (x.shape, x.dtype) != (shape, dtype):
                raise TypeError(
                    f"leaf {name!r} after a step: got {x.dtype}{x.shape}, "
                    f"expected {dtype}{shape}. Keep the dtype in the loss "
                    "and the optimizer."
                )
        return leaves
