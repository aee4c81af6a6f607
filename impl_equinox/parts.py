"""An Equinox model as a live view in another library sees it."""

import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from common.layouts import Role
from common.layouts.model import is_key
from common.views.part import Group, Leaf
from common.views.part import Part as Base
from impl_equinox.canonical import (
    children_of,
    indices,
    is_array,
    require_no_hidden_arrays,
)

FROZEN = "NonTrainable"
"""The class of paramax and flowjax whose arrays are not trained."""


class Part(Base):
    """An Equinox module, and the entries of the state that it uses."""

    base = eqx.Module

    def __init__(self, node: Any, path: tuple[Any, ...], model: "_Model"):
        """Describes a module.

        Args:
            node: the module.
            path: where it is in the model.
            model: what is known of the whole model.
        """
        self.origin = type(node)
        self.children = model.children(node, path)
        words = {word for word, _ in self.children}
        self.static = {k: x for k, x in vars(node).items() if k not in words}
        leaves, self._treedef = jax.tree_util.tree_flatten_with_path(node)
        self._keys = tuple(_key(path + inner) for inner, _ in leaves)
        self._entries = {
            index.marker: model.entries[index.marker]
            for _, index in indices(node)
        }
        # A layer without state may be called with one in a model with state.
        self._takes_state = bool(model.entries)
        self.structure = (
            self._treedef,
            self._keys,
            self.children,
            tuple(self._entries.items()),
            self._takes_state,
        )
        inference = dict(self.children).get("inference")
        if isinstance(inference, Leaf) and inference.role is None:
            own = (child for _, child in children_of(node))
            has_state = any(isinstance(x, eqx.nn.StateIndex) for x in own)
            self.mode = "use_running_average" if has_state else "deterministic"

    def native(self, values):
        model = self._model(values)
        return (model, self._state(values)) if self._entries else model

    def _compute(self, values, name):
        return getattr(self._model(values), name)

    def call(self, values, name, args, kwargs):
        method = getattr(self._model(values), name)
        if _states((args, kwargs)):
            return method(*args, **kwargs), {}
        if self._takes_state:
            state = self._state(values)
            args, kwargs = _with_state(method, args, kwargs, state)
        outputs, new = self._split(name, method(*args, **kwargs))
        return outputs, {k: x for k, x in new.items() if x is not values[k]}

    def _model(self, values: Mapping[Hashable, Any]) -> Any:
        return self._treedef.unflatten([values[key] for key in self._keys])

    def _state(self, values: Mapping[Hashable, Any]) -> Any:
        return eqx.nn.State.tree_unflatten(
            tuple(self._entries),
            [
                entry.treedef.unflatten([values[key] for key in entry.keys])
                for entry in self._entries.values()
            ],
        )

    def _split(self, name: str, result: Any) -> tuple[Any, dict[Any, Any]]:
        """Takes the new state out of what a method returned.

        Raises:
            ValueError: if the method returned several states, one inside of
                another object, or that of another model.
        """
        found = _states(result)
        if not found:
            return result, {}
        parts = result if type(result) is tuple else (result,)
        rest = tuple(x for x in parts if not isinstance(x, eqx.nn.State))
        what = f"result of {self.origin.__name__}.{name}"
        if len(found) > 1 or len(rest) == len(parts):
            raise ValueError(
                f"{what}: got {len(found)} eqx.nn.State inside of a "
                f"{type(result).__name__}, expected one, alone or as an "
                "element of a tuple. Pass the state yourself, as `state=`; "
                "the view then returns what the method returns, and keeps "
                "its own values."
            )
        new: dict[Any, Any] = {}
        entries, markers = found[0].tree_flatten()
        for marker, value in zip(markers, entries, strict=True):
            entry = self._entries.get(marker)
            leaves, treedef = jax.tree.flatten(value)
            if entry is None or treedef != entry.treedef:
                raise ValueError(
                    f"{what}: got a state with an entry {marker!r} of "
                    f"structure {treedef}, expected the entries "
                    f"{list(self._entries)} of the model. Return the state "
                    "that the method was called with, after `state.set`."
                )
            new |= zip(entry.keys, leaves, strict=True)
        if type(result) is not tuple:
            return None, new
        return rest[0] if len(rest) == 1 else rest, new


class _Entry(NamedTuple):
    """An entry of a state: its structure, and the keys of its leaves."""

    treedef: Any
    keys: tuple[Hashable, ...]


class _Model:
    """The leaves of a whole model: their keys, roles and values."""

    def __init__(self, model: Any, state: Any, trainable: Any):
        self.values: dict[Hashable, Any] = {}
        self.entries: dict[Any, _Entry] = {}
        self._roles: dict[Hashable, Role | None] = {}
        self._state = state
        trained = _trained(model, trainable)
        for path, x in jax.tree_util.tree_flatten_with_path(model)[0]:
            self.values[_key(path)] = x
            if is_array(x):
                is_trained = _key(path) in trained and _is_inexact(x)
                role = Role.PARAMETER if is_trained else Role.CONSTANT
                self._roles[_key(path)] = role
        if state is None:
            return
        entries, markers = state.tree_flatten()
        for marker, value in zip(markers, entries, strict=True):
            leaves, treedef = jax.tree.flatten(value)
            keys = tuple((marker, i) for i in range(len(leaves)))
            self.entries[marker] = _Entry(treedef, keys)
            self.values |= zip(keys, leaves, strict=True)

    def children(
        self, node: Any, path: tuple[Any, ...]
    ) -> tuple[tuple[Any, Any], ...]:
        """Describes what is in a node."""
        found: dict[Any, Any] = {}
        for entry, child in children_of(node):
            word = _word(entry)
            if isinstance(node, eqx.Module) and word not in vars(node):
                continue  # a field that the instance has not set
            found[word] = self._child(child, (*path, entry))
        return tuple(found.items())

    def _child(self, child: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(child, eqx.nn.StateIndex):
            entry = self.entries[child.marker]
            numbers = range(entry.treedef.num_leaves)
            return self._entry(entry, entry.treedef.unflatten(numbers))
        if child is None or jax.tree_util.all_leaves([child]):
            self.values.setdefault(_key(path), child)
            return Leaf(self._roles.get(_key(path)), _key(path))
        if isinstance(child, eqx.Module):
            return Part(child, path, self)
        return _group(self.children(child, path))

    def _entry(self, entry: _Entry, numbers: Any) -> Any:
        """Describes the value of an entry of the state.

        Args:
            entry: the entry.
            numbers: a tree of its structure; the leaves are numbered.
        """
        if isinstance(numbers, int):
            key = entry.keys[numbers]
            role = Role.BUFFER
            if is_key(jnp.asarray(self.values[key])):
                role = Role.RANDOM_STATE
            return Leaf(role, key)
        return _group(
            tuple(
                (_word(word), self._entry(entry, child))
                for word, child in children_of(numbers)
            )
        )


def describe(
    model: Any, state: Any = None, trainable: Any = None
) -> tuple[Part, dict[Hashable, Any]]:
    """Describes a model, and returns the values of its leaves by key.

    Args:
        model: an `eqx.Module`.
        state: its `eqx.nn.State`, if it has one.
        trainable: which arrays are trained, as `eqx.partition` takes it.

    Raises:
        TypeError: if `model` or `state` is something else.
        ValueError: if the state is missing or does not fit the model.
    """
    if not isinstance(model, eqx.Module):
        raise TypeError(
            f"model: got {type(model).__name__}, expected an eqx.Module, or "
            "a pair of a model and its state. Put the modules of a container "
            "into a module of your own."
        )
    require_no_hidden_arrays(model)
    _check_state(model, state)
    whole = _Model(model, state, trainable)
    return Part(model, (), whole), whole.values


def _check_state(model: Any, state: Any) -> None:
    """Checks that a state is that of a model."""
    name = type(model).__name__
    own = {index.marker for _, index in indices(model)}
    fix = (
        "Pass the model and the state that `eqx.nn.make_with_state` returned "
        "together"
    )
    if state is None and not own:
        return
    if state is None:
        raise ValueError(
            f"state of {name}: got none, expected an eqx.nn.State with "
            f"{len(own)} entries. {fix}."
        )
    if not isinstance(state, eqx.nn.State):
        raise TypeError(
            f"state of {name}: got {type(state).__name__}, expected an "
            f"eqx.nn.State. {fix}."
        )
    markers = set(state.tree_flatten()[1])
    if own != markers:
        raise ValueError(
            f"state of {name}: got no entry for {len(own - markers)} "
            f"StateIndexes of the model, and {len(markers - own)} entries "
            f"that no StateIndex leads to, expected {len(own)} entries. "
            f"{fix}, or for a part of a model `state.substate(part)`."
        )


def _trained(model: Any, trainable: Any) -> set[str]:
    """Returns the keys of the leaves that are trained."""
    if trainable is not None:
        kept = eqx.filter(model, trainable)
        return {
            _key(path)
            for path, _ in jax.tree_util.tree_flatten_with_path(kept)[0]
        }
    leaves, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=_is_frozen)
    return {_key(path) for path, x in leaves if not _is_frozen(x)}


def _is_frozen(x: Any) -> bool:
    return type(x).__name__ == FROZEN


def _is_inexact(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _group(children: tuple[tuple[Any, Any], ...]) -> Group:
    is_sequence = [word for word, _ in children] == list(range(len(children)))
    return Group(children, is_sequence)


def _key(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path)


def _word(entry: Any) -> Any:
    """Returns the attribute, index or key of an entry of a path."""
    if isinstance(entry, jax.tree_util.GetAttrKey):
        return entry.name
    if isinstance(entry, jax.tree_util.SequenceKey):
        return entry.idx
    return str(getattr(entry, "key", entry))


def _states(tree: Any) -> list[Any]:
    """Returns each `eqx.nn.State` in a tree."""
    leaves = jax.tree.leaves(tree, is_leaf=_is_state)
    return [x for x in leaves if _is_state(x)]


def _is_state(x: Any) -> bool:
    return isinstance(x, eqx.nn.State)


def _with_state(
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    state: Any,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Adds the state to the arguments of a method that takes one.

    Args:
        method: takes a state if it has a parameter `state` that is not
            annotated as something else.
        args: the other arguments.
        kwargs: the other keyword arguments.
        state: the state.
    """
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # a callable without a signature
        return args, kwargs
    parameters = dict(signature.parameters)
    parameter = parameters.pop("state", None)
    if parameter is None or "state" in kwargs or not _fits(parameter):
        return args, kwargs
    has_default = parameter.default is not inspect.Parameter.empty
    if has_default and not jax.tree.leaves(state):
        return args, kwargs
    rest = signature.replace(parameters=list(parameters.values()))
    bound = rest.bind(*args, **kwargs)
    bound.apply_defaults()
    whole = inspect.BoundArguments(
        signature,
        {
            name: state if name == "state" else bound.arguments[name]
            for name in signature.parameters
        },  # type: ignore[arg-type]
    )
    return whole.args, whole.kwargs


def _fits(parameter: inspect.Parameter) -> bool:
    """Tells whether the annotation of a parameter allows for a state."""
    annotation = parameter.annotation
    return annotation is parameter.empty or "State" in str(annotation)
