"""A model of another library as a live NNX module."""

import functools
from collections.abc import Hashable, Mapping
from typing import Any

import jax
from flax import nnx

from common.layouts import Role
from common.views.members import members
from common.views.part import Group, Leaf, Part, walk

_OWN = ("_pytree__", "_nnx")
"""What the names of Flax's own attributes start with."""


class View(nnx.Module):
    """An NNX module that shows a module of another library.

    Its arrays are in Variables of its own. A method makes the other library's
    object from their values, calls it, and writes the values that the call
    changed back into the Variables.

    A subclass for each class of the other library has its methods.
    """

    def __init__(
        self,
        part: Part,
        values: Mapping[Hashable, Any],
        variables: dict[Hashable, nnx.Variable],
    ):
        """Makes a view.

        Args:
            part: the module to show.
            values: of its leaves, by key.
            variables: those that other parts of the view have made, by key.
        """
        for word, child in part.children:
            setattr(self, word, _make(child, values, variables))
        self._view_part = nnx.static(part)

    def original(self) -> Any:
        """Returns the other library's object, with the current values."""
        return self._view_part.native(_values(self))

    def __getattr__(self, name: str) -> Any:
        part = vars(self).get("_view_part")
        if part is None or name.startswith("_pytree__"):
            raise AttributeError(name)
        if name == part.mode:
            return vars(self)["inference"]
        return part.read(_values(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        part = vars(self).get("_view_part")
        if part is not None and not name.startswith(_OWN):
            name = "inference" if name == part.mode else name
            _check_new(part, name, vars(self).get(name), value)
        super().__setattr__(name, value)


def make(part: Part, values: Mapping[Hashable, Any]) -> View:
    """Makes a view of a part.

    Args:
        part: the module to show.
        values: of its leaves, by key.
    """
    return _make(part, values, {})


def _make(
    what: Leaf | Group | Part,
    values: Mapping[Hashable, Any],
    variables: dict[Hashable, nnx.Variable],
) -> Any:
    """Makes what stands in the view for a leaf, group or part."""
    if isinstance(what, Part):
        fields = frozenset(word for word, _ in what.children)
        kind = _view_class(what.origin, what.base, fields, what.mode)
        return kind(what, values, variables)
    if isinstance(what, Group):
        if what.is_sequence:
            return nnx.List(
                _make(child, values, variables) for _, child in what.children
            )
        found = nnx.Dict()
        for word, child in what.children:
            setattr(found, str(word), _make(child, values, variables))
        return found
    value = values[what.key]
    if what.role is None:
        return nnx.static(value)
    if what.role is Role.CONSTANT:
        return nnx.data(value)
    if what.key not in variables:
        kind = nnx.Param if what.role is Role.PARAMETER else nnx.BatchStat
        variables[what.key] = kind(value)
    return variables[what.key]


@functools.cache
def _view_class(
    origin: type, base: type, fields: frozenset[str], mode: str | None
) -> type[View]:
    """Makes the class of views of a class, which has its methods."""
    namespace = members(origin, base, fields, _call, _read)
    if mode is not None:
        namespace["set_view"] = _set_view(mode)
    namespace["__doc__"] = origin.__doc__
    namespace["__module__"] = __name__
    return type(f"{origin.__name__}View", (View,), namespace)


def _set_view(mode: str) -> Any:
    """Returns the method that `nnx.view` calls to switch a mode."""

    def deterministic_view(self, deterministic: bool | None = None) -> None:
        if deterministic is not None:
            self.deterministic = deterministic

    def average_view(self, use_running_average: bool | None = None) -> None:
        if use_running_average is not None:
            self.use_running_average = use_running_average

    return deterministic_view if mode == "deterministic" else average_view


def _call(
    view: View, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Calls a method, and writes what it changed into the Variables."""
    args, kwargs = _unwrapped((args, kwargs))
    part = view._view_part
    outputs, new = part.call(_values(view), name, args, kwargs)
    if new:
        for leaf, variable in walk(view, part, _child):
            if leaf.key in new:
                variable.set_value(new[leaf.key])
    return outputs


def _read(view: View, name: str) -> Any:
    return view._view_part.read(_values(view), name)


def _values(view: View) -> dict[Hashable, Any]:
    """Returns the current value of each leaf, by key."""
    return {
        leaf.key: x.get_value() if isinstance(x, nnx.Variable) else x
        for leaf, x in walk(view, view._view_part, _child)
    }


def _child(node: Any, word: Any) -> Any:
    return vars(node)[str(word)]


def _unwrapped(tree: Any) -> Any:
    """Replaces views by their originals, and Variables by their values."""

    def is_wrapped(x):
        return isinstance(x, View | nnx.Variable)

    def unwrap(x):
        if isinstance(x, View):
            return x.original()
        return x.get_value() if isinstance(x, nnx.Variable) else x

    def is_leaf(x):
        return is_wrapped(x) or isinstance(x, nnx.Pytree)

    if not any(map(is_wrapped, jax.tree.leaves(tree, is_leaf=is_leaf))):
        return tree
    return jax.tree.map(unwrap, tree, is_leaf=is_leaf)


def _check_new(part: Part, name: str, old: Any, value: Any) -> None:
    """Checks that an assigned value can be carried to the original.

    Raises:
        AttributeError: if it cannot.
    """
    what = f"{part.origin.__name__}.{name}"
    child = dict(part.children).get(name)
    if isinstance(child, Leaf) and child.role is None and old is not None:
        if not nnx.is_data(value):
            return
    elif isinstance(child, Leaf) and child.role is Role.CONSTANT:
        if nnx.is_data(value) and not isinstance(value, nnx.Pytree):
            return
    elif isinstance(old, nnx.Variable) and type(old) is type(value):
        return
    elif isinstance(old, View) and isinstance(value, View):
        if old._view_part == value._view_part:
            return
    expected = "no assignment" if old is None else type(old).__name__
    raise AttributeError(
        f"{what}: got {type(value).__name__}, expected {expected}. Write the "
        "value of an array with `set_value`; to change anything else, change "
        "the original model and make a view of that."
    )
