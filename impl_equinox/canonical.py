"""The canonical form of the arrays of an Equinox model and its state.

Parameters, constants and keys are leaves of the model. Buffers are in the
`eqx.nn.State`, and the `StateIndex`es in the model lead to them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

from common.layouts import ModelLayouts, NativeArray, Place, Role, resolve
from common.layouts.model import is_key
from impl_equinox.rules import RULES


class Layouts(ModelLayouts):
    """Names, shapes, roles and layouts of all arrays of a model.

    Floating arrays of the model are parameters, as `eqx.is_inexact_array`
    says, and its integer and boolean arrays are constants. Arrays of the
    state are buffers. Typed keys in either are random state.
    """

    def __init__(self, native: Any):
        """Finds all arrays.

        Args:
            native: a model, or a pair of a model and its `eqx.nn.State`. They
                may hold `jax.ShapeDtypeStruct`s instead of arrays.

        Raises:
            ValueError: naming an array that cannot be in a State, because it
                has the name of another, is in a static field, or is in the
                state but has no `StateIndex` in the model.
        """
        model, state = _pair(native)
        require_no_hidden_arrays(model)
        self.aliases = aliases(model)
        found = [*self._find_arrays(model), *self._find_state(model, state)]
        self._paths = [None if x is None else x.path for x in found]
        super().__init__(x for x in found if x is not None)
        self._type = type(model)
        paths = iter(self._paths)
        parameters = jax.tree.map(
            lambda _: self._parameter(next(paths)), model
        )
        self._parameters, self._treedef = jax.tree.flatten(parameters)

    def _parameter(self, path):
        array = self._by_path.get(path)
        is_parameter = array is not None and array.role is Role.PARAMETER
        return path if is_parameter else None

    def _find_arrays(self, model):
        """Yields each leaf of the model, `None` if it is not an array."""
        for path, x in jax.tree_util.tree_flatten_with_path(model)[0]:
            if not is_array(x):
                yield None
                continue
            role = Role.CONSTANT
            if is_key(x):
                role = Role.RANDOM_STATE
            elif jnp.issubdtype(x.dtype, jnp.inexact):
                role = Role.PARAMETER
            place = resolve(RULES, _trail(model, path))
            where = "model" + jax.tree_util.keystr(path)
            yield NativeArray(where, x, role, self._untied(place))

    def _find_state(self, model, state):
        """Yields each leaf of the state."""
        leaves, treedef = jax.tree.flatten(state)
        numbers = jax.tree.unflatten(treedef, range(len(leaves)))
        arrays: list[NativeArray | None] = [None] * len(leaves)
        for path, index in indices(model) if leaves else []:
            where = f"state.get(model{jax.tree_util.keystr(path)})"
            place = resolve(RULES, _trail(model, path))
            found, _ = jax.tree_util.tree_flatten_with_path(numbers.get(index))
            names = _names_of_state(place, len(found))
            for (inner, number), name in zip(found, names, strict=True):
                x = leaves[number]
                arrays[number] = NativeArray(
                    where + jax.tree_util.keystr(inner),
                    x,
                    Role.RANDOM_STATE if is_key(x) else Role.BUFFER,
                    self._untied(dataclasses.replace(place, names=(name,))),
                )
        if None in arrays:
            raise ValueError(
                f"state: got {arrays.count(None)} arrays to which no "
                f"StateIndex of the model leads, of {len(arrays)}, expected "
                "an index for each. Pass the model and the state that "
                "`eqx.nn.make_with_state` returned together."
            )
        return arrays

    def _untied(self, place: Place) -> Place:
        names = tuple(self.aliases.get(name, name) for name in place.names)
        return dataclasses.replace(place, names=names)

    def flatten(self, native):
        leaves = jax.tree.leaves(_pair(native))
        pairs = zip(self._paths, leaves, strict=True)
        return {path: x for path, x in pairs if path is not None}

    def replace(self, native, arrays):
        leaves, treedef = jax.tree.flatten(_pair(native))
        model, state = treedef.unflatten(
            x if path is None else arrays.get(path, x)
            for path, x in zip(self._paths, leaves, strict=True)
        )
        return (model, state) if _is_pair(native) else model

    def is_parameters(self, x):
        if isinstance(x, eqx.Module) or not isinstance(x, self._type):
            return isinstance(x, self._type)
        try:  # a model may be a plain container, and so may a state of optax
            self._treedef.flatten_up_to(x)
        except ValueError:
            return False
        return True

    def flatten_parameters(self, tree):
        leaves = self._treedef.flatten_up_to(tree)
        return dict(zip(self._parameters, leaves, strict=True))

    def unflatten_parameters(self, leaves):
        return self._treedef.unflatten(
            leaves[path] if path in leaves else self._without_elements(path)
            for path in self._parameters
        )


def abstract(make: Callable[[], Any]) -> Any:
    """Makes a native object with shapes instead of parameters and buffers.

    Constants and random state have their values.

    Args:
        make: makes a model, or a model and its state.
    """
    native = eqx.filter_eval_shape(make)
    layouts = Layouts(native)
    roles = Role.CONSTANT, Role.RANDOM_STATE
    if not layouts.names(*roles):
        return native
    arrays = jax.jit(lambda: layouts.read(make(), *roles))()
    return layouts.write(native, arrays, *roles)


def aliases(model: Any) -> dict[str, str]:
    """Returns the canonical name of each tied array, by its other names.

    `eqx.nn.Shared` ties arrays, and so does one `StateIndex` in two places.
    The first name in alphabetical order is canonical. If `Shared` changes an
    array on the way, by transposing it for example, the result is another
    array, which is computed and has no name.

    Raises:
        ValueError: if an array is tied to one of another layout.
    """
    groups: dict[Any, list[str]] = {}
    steps: dict[Any, Any] = {}

    # A tracer is the same object wherever `Shared` puts it.
    def collect(model):
        whole = _untie(model)
        for path, x in jax.tree_util.tree_flatten_with_path(
            whole, is_leaf=_is_index
        )[0]:
            if not isinstance(x, eqx.nn.StateIndex | Tracer):
                continue
            place = resolve(RULES, _trail(whole, path))
            key: Any = x.marker if _is_index(x) else id(x)
            if isinstance(x, Tracer):
                own = place.steps(x.shape)
                if steps.setdefault(key, own) != own:
                    raise ValueError(
                        f"tied array {place.names[0]!r}: got a layout other "
                        f"than that of {groups[key, 0][0]!r}, expected the "
                        "same. Tie arrays of layers of one type."
                    )
            for i, name in enumerate(place.names):
                groups.setdefault((key, i), []).append(name)

    eqx.filter_eval_shape(collect, model)
    return {
        name: min(group)
        for group in groups.values()
        for name in group
        if name != min(group)
    }


def is_array(x: Any) -> bool:
    """Tells arrays, also abstract ones, from other leaves."""
    return eqx.is_array(x) or isinstance(x, jax.ShapeDtypeStruct)


def _is_index(x: Any) -> bool:
    return isinstance(x, eqx.nn.StateIndex)


def _is_pair(native: Any) -> bool:
    return (
        isinstance(native, tuple)
        and len(native) == 2
        and isinstance(native[1], eqx.nn.State)
    )


def _pair(native: Any) -> tuple[Any, Any]:
    model, state = native if _is_pair(native) else (native, None)
    return model, state


def indices(model: Any) -> list[tuple[Any, Any]]:
    """Returns the path and the value of each `StateIndex` of a model."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=_is_index)
    return [(path, x) for path, x in leaves if _is_index(x)]


def _names_of_state(place: Place, count: int) -> list[str]:
    """Returns the names of the arrays that a `StateIndex` leads to."""
    if len(place.names) == count:
        return list(place.names)
    # A layer without a rule: its attribute's name, numbered.
    return [f"{place.names[0]}.{i}" for i in range(count)]


def require_no_hidden_arrays(model: Any) -> None:
    """Checks that no array is where `jax.tree` does not find it."""
    for path, index in indices(model):
        if jax.tree.leaves(index):
            raise ValueError(
                f"model{jax.tree_util.keystr(path)}: got a StateIndex with "
                "its initial value, expected a model and its state. Make "
                "them with `eqx.nn.make_with_state`."
            )
    for where, node in _nodes(model, "model"):
        if not isinstance(node, eqx.Module):
            continue
        for field in dataclasses.fields(node):
            value = getattr(node, field.name, None)
            hidden = field.metadata.get("static", False) and any(
                eqx.is_array(x) for x in jax.tree.leaves(value)
            )
            if hidden:
                raise ValueError(
                    f"{where}.{field.name}: got an array in a static field, "
                    "expected it in an ordinary field, where it is part of "
                    "the State. Remove `static=True`."
                )


def _nodes(node: Any, where: str) -> Any:
    """Yields each inner node of a pytree, with its path."""
    yield where, node
    for entry, child in children_of(node):
        if not jax.tree_util.all_leaves([child]):
            yield from _nodes(child, where + jax.tree_util.keystr((entry,)))


def children_of(node: Any) -> Any:
    """Returns what is in a node of a pytree, with the keys that lead there."""
    registry = jax.tree_util.default_registry
    found = registry.flatten_one_level_with_keys(node)
    return [] if found is None else found[0]


def _trail(model: Any, path: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """Returns each node on a path, and the word that leads on from it."""
    trail: list[tuple[Any, Any]] = []
    node = model
    for entry in path:
        if isinstance(entry, jax.tree_util.GetAttrKey):
            word, child = entry.name, getattr(node, entry.name)
        else:
            word = getattr(entry, "idx", getattr(entry, "key", None))
            child = dict(children_of(node))[entry]
        trail.append((node, word))
        node = child
    return trail


def _untie(tree: Any) -> Any:
    """Puts tied arrays back in all their places, inside of `Shared`."""

    def is_shared(x):
        return isinstance(x, eqx.nn.Shared)

    def untie(x):
        if not is_shared(x):
            return x
        whole = eqx.tree_at(lambda shared: shared.pytree, x, _untie(x.pytree))
        return eqx.tree_at(lambda shared: shared.pytree, whole, whole())

    return jax.tree.map(untie, tree, is_leaf=is_shared)
