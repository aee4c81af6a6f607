"""A module of another library as a live Equinox model."""

import functools
import types
from collections.abc import Hashable, Mapping
from typing import Any

import equinox as eqx
import jax

from common.layouts import Role
from common.views.members import members
from common.views.part import Group, Leaf, Part, walk


class View(eqx.Module):
    """An Equinox module that shows a module of another library.

    Its trainable arrays are leaves, and `eqx.nn.StateIndex`es lead to the
    others. A method makes the other library's object from them, calls it, and
    returns its outputs and the new state.

    A subclass for each class of the other library has its methods and fields.
    """

    _view_part: Part = eqx.field(static=True)

    def __init__(
        self,
        part: Part,
        values: Mapping[Hashable, Any],
        made: dict[Hashable, Any],
        root: str,
    ):
        """Makes a view.

        Args:
            part: the module to show.
            values: of its leaves, by key.
            made: what other parts of the view have made, by key.
            root: the name of the whole module's class.
        """
        self._view_part = part
        for word, child in part.children:
            object.__setattr__(self, word, _make(child, values, made, root))

    def original(self, state: Any = None) -> Any:
        """Returns the other library's object, with the current values.

        Args:
            state: the state of the model, if it has any.

        Raises:
            TypeError: if the state is missing, or is no `eqx.nn.State`.
            ValueError: if the state is that of another model.
        """
        return self._view_part.native(_values(self, state, "original"))

    def __getattr__(self, name: str) -> Any:
        part = vars(self).get("_view_part")
        if part is None or name in dict(part.children):
            raise AttributeError(name)
        return _read(self, name)


def make(part: Part, values: Mapping[Hashable, Any]) -> Any:
    """Makes a view of a part, or a pair of a view and its state.

    Args:
        part: the module to show.
        values: of its leaves, by key.
    """
    view = _make(part, values, {}, part.origin.__name__)
    if not _indices(view):
        return view
    # `make_with_state` would give an index in two places two entries.
    return eqx.nn.delete_init_state(view), eqx.nn.State(view)


class _Tied(eqx.Module):
    """Stands for an array that is a leaf in another place of the view."""


def _make(
    what: Leaf | Group | Part,
    values: Mapping[Hashable, Any],
    made: dict[Hashable, Any],
    root: str,
) -> Any:
    """Makes what stands in the view for a leaf, group or part."""
    if isinstance(what, Part):
        fields = tuple(word for word, _ in what.children)
        return _view_class(what.origin, what.base, fields)(
            what, values, made, root
        )
    if isinstance(what, Group):
        if what.is_sequence:
            return [
                _make(child, values, made, root) for _, child in what.children
            ]
        return {
            word: _make(child, values, made, root)
            for word, child in what.children
        }
    value = values[what.key]
    if what.key in made:
        return made[what.key]
    if what.role in (Role.BUFFER, Role.RANDOM_STATE):
        made[what.key] = _index(root, what.key, value)
        return made[what.key]
    made[what.key] = _Tied()
    return value


def _index(root: str, key: Hashable, value: Any) -> Any:
    """Makes an index with a marker that another view of the model has too."""
    words = key if isinstance(key, tuple) else (key,)
    index = eqx.nn.StateIndex(value)
    object.__setattr__(index, "marker", ".".join(map(str, (root, *words))))
    return index


@functools.cache
def _view_class(
    origin: type, base: type, fields: tuple[str, ...]
) -> type[View]:
    """Makes the class of views of a class, with its methods and fields."""
    namespace = members(origin, base, fields, _call, _read)
    namespace["__doc__"] = origin.__doc__
    namespace["__module__"] = __name__
    namespace["__annotations__"] = dict.fromkeys(fields, Any)
    namespace["__init__"] = View.__init__
    return types.new_class(
        f"{origin.__name__}View",
        (View,),
        exec_body=lambda own: own.update(namespace),
    )


def _call(
    view: View, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Calls a method; returns its outputs, and the new state if it has one."""
    part = view._view_part
    what = f"{part.origin.__name__}.{name}"
    found = [x for x in (*args, *kwargs.values()) if _is_state(x)]
    if len(found) > 1:
        raise TypeError(
            f"{what}: got {len(found)} states, expected one. Pass the state "
            "of the whole model, which holds those of its layers."
        )
    state = found[0] if found else None
    values = _values(view, state, name)
    args = tuple(x for x in args if not _is_state(x))
    kwargs = {word: x for word, x in kwargs.items() if not _is_state(x)}
    outputs, new = part.call(values, name, args, kwargs)
    if state is None:
        return outputs
    return outputs, _updated(view, state, new)


def _read(view: View, name: str) -> Any:
    values = {
        leaf.key: x
        for leaf, x in walk(view, view._view_part, _child)
        if not isinstance(x, _Tied | eqx.nn.StateIndex)
    }
    return view._view_part.read(values, name)


def _values(view: View, state: Any, name: str) -> dict[Hashable, Any]:
    """Returns the current value of each leaf, by key.

    Raises:
        TypeError: if the state is missing, or is no `eqx.nn.State`.
        ValueError: if the state is that of another model, or if an array is a
            leaf outside of the view.
    """
    what = f"{view._view_part.origin.__name__}.{name}"
    values: dict[Hashable, Any] = {}
    tied = set()
    for leaf, x in walk(view, view._view_part, _child):
        if isinstance(x, _Tied):
            tied.add(leaf.key)
        elif isinstance(x, eqx.nn.StateIndex):
            values[leaf.key] = _get(what, state, x)
        else:
            values[leaf.key] = x
    if outside := sorted(map(str, tied - values.keys())):
        raise ValueError(
            f"{what}: got a layer that shares the arrays {outside} with "
            "another layer that holds them, expected a layer with all of its "
            "arrays. Call a method of the module that contains both."
        )
    return values


def _get(what: str, state: Any, index: Any) -> Any:
    """Returns the value of a state at an index."""
    if not _is_state(state):
        got = "no state" if state is None else type(state).__name__
        raise TypeError(
            f"{what}: got {got}, "
            "expected an eqx.nn.State. Pass the state that `as_equinox` "
            "returned: `outputs, state = model(x, state)`."
        )
    try:
        return state.get(index)
    except KeyError:
        raise ValueError(
            f"{what}: got a state without an entry {index.marker!r}, "
            "expected the state of this model. Pass the state that "
            "`as_equinox` returned with the model, or the state that a call "
            "of it returned."
        ) from None


def _updated(view: View, state: Any, new: Mapping[Hashable, Any]) -> Any:
    """Returns the state with new values; the old state cannot be used."""
    if not new:
        return state
    indices = {
        leaf.key: x
        for leaf, x in walk(view, view._view_part, _child)
        if leaf.key in new
    }
    markers = tuple(indices[key].marker for key in new)
    # `State.set` would refuse a value that is no longer weakly typed.
    changed = eqx.nn.State.tree_unflatten(markers, tuple(new.values()))
    return state.update(changed)


def _child(node: Any, word: Any) -> Any:
    return vars(node)[word] if isinstance(node, View) else node[word]


def _is_state(x: Any) -> bool:
    return isinstance(x, eqx.nn.State)


def _indices(view: View) -> list[Any]:
    def is_index(x):
        return isinstance(x, eqx.nn.StateIndex)

    return list(filter(is_index, jax.tree.leaves(view, is_leaf=is_index)))
