"""The two models of a comparison, as functions of the same arrays.

Both are functions of the left's trained arrays: the right model is called
with what the mapping makes of them. So gradients, an optimizer and its state
are in one axis order, whatever the models' own orders are, and an array that
is fused on one side and split on the other is one array.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.comparison import mapping as mappings
from common.comparison.functions import name_modules
from common.layouts import Role
from common.native import (
    Call,
    NativeModel,
    is_weak_counter,
    recast_counter,
)
from common.registry import find_library

Arrays = dict[str, Any]


class Half:
    """One of the two models.

    Attributes:
        label: its name in the report.
        model: the model.
        trained: the left's arrays that are trained, by dotted name.
        rest: the model's other arrays, by its own dotted name.
        held: the names of arrays whose values are constants of the program.
    """

    def __init__(
        self,
        label: str,
        model: NativeModel,
        call: Call | None,
        trained: Arrays,
        rest: Arrays,
        join: Callable[[Arrays], Arrays],
    ):
        """Prepares a model.

        Args:
            label: its name in the report.
            model: the model.
            call: the user's way to call it, or `None`.
            trained: the left's trained arrays.
            rest: the model's other arrays.
            join: makes the model's trained arrays from the left's.
        """
        self.label, self.model = label, model
        self.trained, self.rest = trained, rest
        self.held: list[str] = []
        self._join = join
        self._call = call or find_library(model.library).call
        # Only `diff` reads the names of modules, so that what is compiled is
        # the user's model as it is.
        self._named = NativeModel(model.native, _with_names(self._call))

    def hold(self) -> bool:
        """Makes constants of arrays that are neither trained nor updated.

        A model may call NumPy on an array, whose values it then needs to know
        while it is traced.

        Returns:
            Whether there are such arrays.
        """
        infos, roles = self.model.infos, (Role.PARAMETER, Role.CONSTANT)
        self.held = [name for name in self.rest if infos[name].role in roles]
        self.model = self.model.copy({n: self.rest[n] for n in self.held})
        self._named = NativeModel(self.model.native, _with_names(self._call))
        self.rest = {n: x for n, x in self.rest.items() if n not in self.held}
        return bool(self.held)

    def arrays(self, trained: Arrays, rest: Arrays) -> Arrays:
        """Returns the model's own arrays.

        Args:
            trained: the left's trained arrays.
            rest: the model's other arrays.
        """
        return {**rest, **self._join(trained)}

    def apply(
        self,
        arrays: Arrays,
        xs: Any,
        *,
        training: bool = False,
        key: Any = None,
        named: bool = False,
    ) -> tuple[Any, Arrays]:
        """Calls the model.

        Args:
            arrays: the model's own arrays.
            xs: a batch.
            training: whether to call it in training mode.
            key: a random key, if the model takes one.
            named: whether operations are named after their modules.

        Returns:
            The outputs, and the arrays that are not trained after the call.
        """
        model = self._named if named else self.model
        outputs, after = model.apply(arrays, xs, training=training, key=key)
        return outputs, {name: after[name] for name in self.rest}

    def infer(self, trained: Arrays, rest: Arrays, xs: Any) -> Any:
        """Calls the model in inference mode.

        Returns:
            The outputs, and all arrays before and after it.
        """
        before = self.arrays(trained, rest)
        outputs, after = self.model.apply(before, xs)
        names = [n for n in before if not is_random(self.model.infos[n])]
        return (
            outputs,
            {name: before[name] for name in names},
            {name: after[name] for name in names},
        )


def is_random(info: Any) -> bool:
    """Tells random keys and their counters from other arrays."""
    return info.role is Role.RANDOM_STATE


def make_halves(
    models: tuple[NativeModel, NativeModel],
    calls: tuple[Call | None, Call | None],
    labels: tuple[str, str],
    mapping: mappings.Mapping,
    dtype: str | None,
) -> tuple[Half, Half]:
    """Makes both halves, which start from the left's arrays.

    Args:
        models: the left and the right model.
        calls: how to call them, or `None`.
        labels: their names in the report.
        mapping: between their arrays.
        dtype: the dtype of all floating arrays; `None` for each array's own.
    """
    left, right = models
    trained = mapping.trained(left, right)
    arrays = {name: _cast(x, dtype) for name, x in left.arrays().items()}
    params = {name: arrays[name] for name in trained}
    others = {n: x for n, x in arrays.items() if n not in params}
    moving, fixed = [], {}
    for name, x in right.arrays().items():
        if name in mapping.derived:
            value = np.full(x.shape, mapping.derived[name], x.dtype)
            fixed[name] = _as(value, x, dtype)
        elif name not in mapping.layouts or is_random(right.infos[name]):
            fixed[name] = _cast(x, dtype)
        elif set(mapping.sources(name)) & params.keys():
            moving.append(name)
        else:
            fixed[name] = _as(mapping.layouts[name].apply(arrays), x, dtype)
    kinds = {name: right.infos[name].value for name in moving}

    def join(trained: Arrays) -> Arrays:
        given = {**others, **trained}
        return {
            name: _as(mapping.layouts[name].apply(given), kinds[name], dtype)
            for name in moving
        }

    return (
        Half(labels[0], left, calls[0], params, others, dict),
        Half(labels[1], right, calls[1], params, fixed, join),
    )


def comparable_rest(
    mapping: mappings.Mapping, left: Half, right: Half
) -> list[str]:
    """Returns the right's buffers that are made of the left's buffers."""
    buffers = {n for n, x in left.model.infos.items() if x.role is Role.BUFFER}
    return [
        name
        for name in right.rest
        if name in mapping.layouts
        and not mapping.divides(name)
        and set(mapping.sources(name)) <= left.rest.keys()
        and (
            right.model.infos[name].role is Role.BUFFER
            or set(mapping.sources(name)) & buffers
        )
    ]


def cast(tree: Any, dtype: str | None) -> Any:
    """Casts the floating arrays of a pytree."""
    return jax.tree.map(lambda x: _cast(x, dtype), tree)


def host(arrays: Mapping[str, Any]) -> Arrays:
    """Returns arrays on the host, integers of any width as int64."""

    def convert(x):
        x = np.asarray(x)
        return x.astype(np.int64) if x.dtype.kind in "iu" else x

    return {name: convert(x) for name, x in arrays.items()}


def _cast(x: Any, dtype: str | None) -> Any:
    if not hasattr(x, "dtype"):
        return x
    if is_weak_counter(x):
        return recast_counter(x)
    if dtype is None or not jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.asarray(x)
    return jnp.asarray(x, dtype)


def _as(x: Any, like: Any, dtype: str | None) -> Any:
    """Casts an array to the dtype that the right model has in its place."""
    if dtype is not None and jnp.issubdtype(like.dtype, jnp.floating):
        return jnp.asarray(x, dtype)
    if is_weak_counter(like):
        return recast_counter(x)
    return jnp.asarray(x, like.dtype)


def _with_names(call: Call) -> Call:
    """Returns a call whose operations are named after their modules."""

    def named(native, xs, *, training, key):
        (native,) = name_modules((native,))
        return call(native, xs, training=training, key=key)

    return named
