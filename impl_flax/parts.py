"""An NNX module as a live view in another library sees it."""

from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from flax import nnx

from common.layouts import Role
from common.layouts.model import is_key
from common.views.changes import check_same_type, is_equal, is_same, kept
from common.views.part import Group, Leaf
from common.views.part import Part as Base
from impl_flax.canonical import children_of, is_array

MODES = ("deterministic", "use_running_average")
"""The attributes that say whether a layer is in inference mode."""


class Part(Base):
    """An NNX module, without the values of its Variables and arrays."""

    base = nnx.Module

    def __init__(
        self, module: nnx.Pytree, path: tuple[Any, ...], whole: "_Whole"
    ):
        """Describes a module.

        Args:
            module: the module.
            path: where it is in the whole module.
            whole: what is known of the whole module.
        """
        self.origin = type(module)
        self.children = whole.children(module, path)
        words = {word for word, _ in self.children}
        self.static = {k: x for k, x in vars(module).items() if k not in words}
        self._graphdef, state = nnx.split(module)
        self._slots = {
            inner: whole.slots[path + inner]
            for inner, _ in nnx.to_flat_state(state)
        }
        self._settings = {
            inner[len(path) :]: setting
            for inner, setting in whole.settings.items()
            if inner[: len(path)] == path
        }
        self.structure = (
            self._graphdef,
            self.children,
            tuple(slot.key for slot in self._slots.values()),
        )
        self.mode = "inference" if "inference" in dict(self.children) else None

    def native(self, values):
        module = nnx.merge(
            self._graphdef,
            nnx.from_flat_state(
                {
                    path: slot.fill(values[slot.key])
                    for path, slot in self._slots.items()
                }
            ),
        )
        for path, setting in self._settings.items():
            self._set(module, path, setting, values[setting.key])
        return module

    def _compute(self, values, name):
        shapes = {slot.key: slot.shape for slot in self._slots.values()}
        return getattr(self.native({**shapes, **values}), name)

    def call(self, values, name, args, kwargs):
        module = self.native(values)
        before = _snapshot(module)
        outputs = getattr(module, name)(*args, **kwargs)
        after = _snapshot(module)
        what = f"{self.origin.__name__}.{name}"
        _check_structure(what, before, after)

        def run(given):
            module = self.native({**values, **given})
            getattr(module, name)(*args, **kwargs)
            return _snapshot(module)[1]

        new = self._changes(what, before[1], after[1], run)
        return _without_variables(outputs), new

    def _set(self, module, path, setting, value):
        """Puts a setting of the view into a module.

        Raises:
            ValueError: if the view has changed a setting that is fixed.
        """
        if value is setting.value or value == setting.value:
            return
        node = module
        for word in path[:-1]:
            node = children_of(node)[word]
        if not setting.is_mode:
            raise ValueError(
                f"{self.origin.__name__}.{'.'.join(map(str, path))}: got "
                f"{value!r}, expected {setting.value!r}, which cannot be "
                "changed in a view. Change the NNX module, and make a view "
                "of that."
            )
        for name in MODES:
            if name in vars(node):
                setattr(node, name, value)

    def _changes(self, what, old, new, run):
        """Returns the values that a call changed, by key.

        Raises:
            ValueError: if the call changed what is no state.
        """
        found: dict[Hashable, Any] = {}
        fixed = []
        for path, slot in self._slots.items():
            if is_same(new[path], old[path]):
                continue
            if slot.role in (Role.PARAMETER, Role.CONSTANT):
                fixed.append(path)
                continue
            check_same_type(f"{what}: {_dotted(path)}", old[path], new[path])
            found[slot.key] = jax.tree.map(_without_key, new[path])
        if not fixed or is_equal(
            [new[x] for x in fixed], [old[x] for x in fixed]
        ):
            return found

        # Transformations of NNX return all Variables, also unchanged ones.
        def again(*given):
            keys = (self._slots[path].key for path in fixed)
            after = run(dict(zip(keys, given, strict=True)))
            return [jax.tree.map(_without_key, after[path]) for path in fixed]

        given = [jax.tree.map(_without_key, old[path]) for path in fixed]
        for path, is_kept in zip(fixed, kept(again, given), strict=True):
            if not is_kept:
                role = self._slots[path].role.name.lower()
                raise ValueError(
                    f"{what}: got a call that writes to the {role} "
                    f"{_dotted(path)!r}, expected one that writes to other "
                    "Variables only, whose values are in the state. Keep the "
                    "array in an `nnx.Variable` of another type, or leave it "
                    "out of `trainable`."
                )
        return found


class _Slot(NamedTuple):
    """A place for a value in an NNX module.

    Attributes:
        key: names the value.
        role: what the value is for.
        kind: the type of the Variable, or `None` for an array without one.
        metadata: of the Variable.
        generators: for each leaf of the value, how typed keys are made from
            their data, or `None` if the leaf holds none.
        shape: stands for the value where it is not known.
    """

    key: Hashable
    role: Role
    kind: Any
    metadata: dict[str, Any]
    generators: tuple[str | None, ...]
    shape: Any

    def fill(self, value: Any) -> Any:
        """Returns what an NNX state has in this place."""
        if value is not self.shape and any(self.generators):
            leaves, treedef = jax.tree.flatten(value)
            value = treedef.unflatten(map(_with_key, leaves, self.generators))
        if self.kind is None:
            return value
        return self.kind.from_metadata(value, dict(self.metadata))


class _Setting(NamedTuple):
    """A setting of a module that is a leaf of its view."""

    key: Hashable
    value: Any
    is_mode: bool


class _Whole:
    """The leaves of a whole module: their keys, places and values."""

    def __init__(self, trainable: Any):
        self.values: dict[Hashable, Any] = {}
        self.slots: dict[tuple[Any, ...], _Slot] = {}
        self.settings: dict[tuple[Any, ...], _Setting] = {}
        self._owned: dict[Any, tuple[Any, ...]] = {}
        self._ancestors: list[Any] = []
        self._is_trained = nnx.filterlib.to_predicate(
            nnx.Param if trainable is None else trainable
        )

    def children(
        self, node: Any, path: tuple[Any, ...]
    ) -> tuple[tuple[Any, Any], ...]:
        """Describes what is in a node.

        Raises:
            ValueError: if the node contains itself.
        """
        if any(node is other for other in self._ancestors):
            raise ValueError(
                f"module at {_dotted(path)!r}: got a module that contains "
                "itself, expected a tree of modules. Remove the attribute "
                "that leads back."
            )
        self._ancestors.append(node)
        found: list[tuple[Any, Any]] = []
        is_container = not isinstance(node, nnx.Pytree) or isinstance(
            node, nnx.List | nnx.Dict
        )
        for word, child in children_of(node).items():
            if str(word).startswith("_pytree__") or word == "_length":
                continue
            inner = (*path, word)
            described = self._child(node, word, child, inner)
            if described is None and is_container:
                described = self._setting(inner, child, False)
            if described is not None:
                found.append((word, described))
        self._ancestors.pop()
        own = {} if is_container else vars(node)
        modes = [own[name] for name in MODES if name in own]
        if modes and "inference" not in own:
            value = modes[0] if len(set(modes)) == 1 else None
            setting = self._setting((*path, "inference"), value, True)
            found.append(("inference", setting))
        return tuple(found)

    def _setting(self, path, value, is_mode):
        self.settings[path] = _Setting(path, value, is_mode)
        self.values[path] = value
        return Leaf(None, path)

    def _child(self, node, word, child, path):
        if isinstance(child, nnx.Variable) or is_array(child):
            # One array in two attributes is not tied, but a Variable is.
            is_variable = isinstance(child, nnx.Variable)
            owned = id(child) if is_variable else (id(node), word)
            return self._leaf(owned, path, child)
        if not _holds_data(child):
            return None
        if isinstance(child, nnx.List | list | tuple):
            children = self.children(child, path)
            words = [word for word, _ in children]
            return Group(children, words == list(range(len(words))))
        if isinstance(child, nnx.Pytree) and not isinstance(child, nnx.Dict):
            return Part(child, path, self)
        if nnx.graph.is_node(child):
            return Group(self.children(child, path), False)
        return None

    def _leaf(self, owned, path, holder):
        key = self._owned.setdefault(owned, path)
        value = _value(holder)
        kind, metadata, role = None, {}, Role.CONSTANT
        if isinstance(holder, nnx.Variable):
            kind, metadata = type(holder), holder.get_metadata()
            is_random = isinstance(holder, nnx.RngState)
            role = Role.RANDOM_STATE if is_random else Role.BUFFER
            if self._is_trained(path, holder):
                role = Role.PARAMETER
        leaves = jax.tree.leaves(value)
        _check_arrays(path, leaves)
        if kind is None and jnp.issubdtype(value.dtype, jnp.inexact):
            role = Role.BUFFER  # as a leaf, Equinox would train it
        generators = tuple(
            str(jr.key_impl(x)) if _is_typed(x) else None for x in leaves
        )
        value = jax.tree.map(_without_key, value)
        self.values[key] = value
        shape = jax.tree.map(_shape, value)
        self.slots[path] = _Slot(key, role, kind, metadata, generators, shape)
        return Leaf(role, key)


def describe(
    module: Any, state: Any = None, trainable: Any = None
) -> tuple[Part, dict[Hashable, Any]]:
    """Describes a module, and returns the values of its leaves by key.

    Typed keys are given as their data, which Equinox can write to a file.

    Args:
        module: an `nnx.Module`.
        state: must be `None`, since a module holds its state itself.
        trainable: an NNX filter of the Variables to train, `nnx.Param` by
            default.

    Raises:
        TypeError: if `module` is not an NNX module.
        ValueError: if a Variable has a value that is not an array, or if the
            module contains itself.
    """
    if not isinstance(module, nnx.Module) or state is not None:
        raise TypeError(
            f"module: got {type(module).__name__}, expected an nnx.Module. "
            "Pass the object that its constructor returned."
        )
    whole = _Whole(trainable)
    return Part(module, (), whole), whole.values


def _snapshot(module: nnx.Pytree) -> tuple[Any, dict[Any, Any]]:
    """Returns a module's structure, and its present values by path."""
    graphdef, state = nnx.split(module)
    return graphdef, {
        path: _value(holder) for path, holder in nnx.to_flat_state(state)
    }


def _holds_data(x: Any) -> bool:
    """Tells modules and containers of arrays from static attributes."""
    return any(map(nnx.is_data, [x, *jax.tree.leaves(x, is_leaf=nnx.is_data)]))


def _value(holder: Any) -> Any:
    return holder.get_value() if isinstance(holder, nnx.Variable) else holder


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def _is_typed(x: Any) -> bool:
    return is_array(x) and is_key(x)


def _with_key(x: Any, generator: str | None) -> Any:
    return x if generator is None else jr.wrap_key_data(x, impl=generator)


def _without_key(x: Any) -> Any:
    """Returns an array that is not a typed key."""
    x = jnp.asarray(x) if not is_array(x) else x
    return jr.key_data(x) if is_key(x) else x


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _check_arrays(path: tuple[Any, ...], leaves: list[Any]) -> None:
    """Checks that a Variable holds arrays or numbers.

    Raises:
        ValueError: if it holds something else.
    """
    for x in leaves:
        is_number = isinstance(x, bool | int | float | complex)
        if isinstance(x, jax.ShapeDtypeStruct) or not (
            is_number or is_array(x)
        ):
            raise ValueError(
                f"{_dotted(path)}: got {type(x).__name__}, expected an array "
                "or a number. Give the Variable a value, or store the object "
                "in a static attribute."
            )


def _check_structure(what: str, before: Any, after: Any) -> None:
    """Checks that a call has left the structure of a module alone.

    Raises:
        ValueError: naming the Variables that it created or removed.
    """
    (graphdef, old), (new_graphdef, new) = before, after
    if graphdef != new_graphdef:
        names = sorted(_dotted(path) for path in old.keys() ^ new.keys())
        raise ValueError(
            f"{what}: got a call that changes the structure of the "
            f"module ({', '.join(names) or 'a static attribute'}), "
            "expected one that changes values of Variables only. Call "
            "methods that create or remove Variables before "
            "`as_equinox`, and pass settings as arguments."
        )


def _without_variables(tree: Any) -> Any:
    """Replaces each Variable in the outputs of a method by its value."""

    def is_leaf(x):
        return isinstance(x, nnx.Variable)

    if not any(map(is_leaf, jax.tree.leaves(tree, is_leaf=is_leaf))):
        return tree
    return jax.tree.map(_value, tree, is_leaf=is_leaf)
