"""The canonical form of the arrays of an NNX module.

All of them are in the graph of modules: parameters, buffers and random state
in `nnx.Variable`s of different types, and constants as plain attributes.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx

from common.layouts import ModelLayouts, NativeArray, Place, Role, resolve
from common.layouts.model import is_key
from impl_flax.rules import RULES


class Layouts(ModelLayouts):
    """Names, shapes, roles and layouts of all arrays of a module.

    An `nnx.Param` is a parameter and an `nnx.RngState` is random state, as is
    any typed key. All other Variables are buffers: `nnx.BatchStat`,
    `nnx.Cache`, and types that a user defines. Arrays that are attributes
    without a Variable are constants.
    """

    def __init__(self, native: nnx.Module):
        """Finds all arrays.

        Args:
            native: a module. It may hold `jax.ShapeDtypeStruct`s instead of
                arrays.

        Raises:
            ValueError: naming an array that cannot be in a State, because it
                has the name of another, or is in an `nnx.Param` of several.
        """
        groups = _groups(native)
        self._places = {
            places[0].path: places[0] for places in groups.values()
        }
        canonical, self.aliases = _names(groups)
        super().__init__(
            NativeArray(
                str(found),
                found.value,
                found.role,
                canonical[found.path],
                is_counter=isinstance(found.holder, nnx.RngCount),
            )
            for found in self._places.values()
        )
        self._parameters = {
            str(found): found.variable_path
            for found in self._places.values()
            if found.role is Role.PARAMETER
        }

    def flatten(self, native):
        return {
            str(found): _get(native, path)
            for path, found in self._places.items()
        }

    def replace(self, native, arrays):
        for path, found in self._places.items():
            if str(found) in arrays:
                _set(native, path, arrays[str(found)])
        return native

    def is_parameters(self, x):
        return isinstance(x, nnx.State)

    def flatten_parameters(self, tree):
        leaves = dict(nnx.to_flat_state(tree))
        return {name: leaves[path] for name, path in self._parameters.items()}

    def unflatten_parameters(self, leaves):
        return nnx.from_flat_state(
            {
                path: leaves[name]
                if name in leaves
                else self._without_elements(name)
                for name, path in self._parameters.items()
            }
        )


def abstract(make: Callable[[], nnx.Module]) -> nnx.Module:
    """Makes a module with shapes instead of parameters and buffers.

    Constants and random state have their values.

    Args:
        make: makes a module.
    """
    graphdefs = []

    def split():
        graphdef, state = nnx.split(make())
        graphdefs.append(graphdef)
        return state

    state = jax.eval_shape(split)
    module = nnx.merge(graphdefs[0], state)
    layouts = Layouts(module)
    roles = Role.CONSTANT, Role.RANDOM_STATE
    if layouts.names(*roles):
        arrays = jax.jit(lambda: layouts.read(make(), *roles))()
        layouts.write(module, arrays, *roles)
    return module


def aliases(module: nnx.Module) -> dict[str, str]:
    """Returns the canonical name of each tied array, by its other names.

    A module or a Variable in two places is tied. The first name in
    alphabetical order is canonical.

    Raises:
        ValueError: if an array is tied to one of another layout.
    """
    return _names(_groups(module))[1]


@dataclasses.dataclass(frozen=True)
class _Found:
    """An array of a module.

    Attributes:
        path: leads to it from the module: attributes, indices and keys, and
            then the path inside of the Variable's value, if it is a tree.
        trail: each node on the path, and the word that leads on from it.
        holder: the Variable that holds it, or the array itself.
        value: the array.
        role: what it is for.
        variable_path: the path to the holder.
    """

    path: tuple[Any, ...]
    trail: tuple[tuple[Any, Any], ...]
    holder: Any
    value: Any
    role: Role
    variable_path: tuple[Any, ...]

    def __str__(self) -> str:
        words = (
            f"[{word!r}]" if isinstance(word, int) else f".{word}"
            for word in self.path
        )
        return "module" + "".join(words)


def is_array(x: Any) -> bool:
    """Tells arrays, also abstract ones, from other values."""
    return isinstance(x, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def _walk(
    node: Any, trail: tuple[tuple[Any, Any], ...] = ()
) -> Iterator[_Found]:
    """Yields each array of a module, once for each path that leads to it."""
    path = tuple(word for _, word in trail)
    if isinstance(node, nnx.Variable):
        leaves, _ = jax.tree_util.tree_flatten_with_path(node.get_value())
        for inner, x in leaves:
            if not is_array(x):
                continue
            words = _words(inner)
            if words and isinstance(node, nnx.Param):
                raise ValueError(
                    f"{'.'.join(map(str, path))}: got an nnx.Param of a tree "
                    "of arrays, expected one array. Use a Param for each."
                )
            whole = (*trail, *((node, word) for word in words))
            yield _Found((*path, *words), whole, node, x, _role(node, x), path)
    elif is_array(node):
        yield _Found(path, trail, node, node, _role(None, node), path)
    elif nnx.graph.is_node(node):
        if any(node is ancestor for ancestor, _ in trail):
            return
        for word, child in children_of(node).items():
            yield from _walk(child, (*trail, (node, word)))


def children_of(node: Any) -> dict[Any, Any]:
    """Returns what is in a node of the graph, by attribute, index or key."""
    impl = nnx.graph.get_node_impl(node)
    return {} if impl is None else dict(impl.node_dict(node))


def _role(variable: nnx.Variable | None, x: Any) -> Role:
    if isinstance(variable, nnx.RngState) or is_key(x):
        return Role.RANDOM_STATE
    if isinstance(variable, nnx.Param):
        return Role.PARAMETER
    return Role.CONSTANT if variable is None else Role.BUFFER


def _groups(module: nnx.Module) -> dict[Any, list[_Found]]:
    """Returns all places of each array: several if it is tied."""
    groups: dict[Any, list[_Found]] = {}
    for found in _walk(module):
        if isinstance(found.holder, nnx.Variable):
            inside = found.path[len(found.variable_path) :]
            key = id(found.holder), *inside
        else:
            # Not the array: one array in two attributes is not tied.
            node, word = found.trail[-1]
            key = id(node), word
        groups.setdefault(key, []).append(found)
    return groups


def _names(
    groups: dict[Any, list[_Found]],
) -> tuple[dict[tuple[Any, ...], Place], dict[str, str]]:
    """Returns the canonical place of each array, and its other names."""
    canonical, aliases = {}, {}
    for group in groups.values():
        places = sorted(
            (resolve(RULES, found.trail) for found in group),
            key=lambda place: place.names,
        )
        shape = tuple(group[0].value.shape)
        if len({place.steps(shape) for place in places}) > 1:
            raise ValueError(
                f"tied array {places[1].names[0]!r}: got a layout other than "
                f"that of {places[0].names[0]!r}, expected the same. Tie "
                "arrays of layers of one type."
            )
        canonical[group[0].path] = places[0]
        first = places[0].names[0]
        aliases |= {place.names[0]: first for place in places[1:]}
    return canonical, aliases


def _follow(node: Any, path: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Follows a path to a Variable or a plain leaf, and the rest of it."""
    for i, word in enumerate(path):
        if isinstance(node, nnx.Variable):
            return node, path[i:]
        node = children_of(node)[word]
    return node, ()


def _get(module: nnx.Module, path: tuple[Any, ...]) -> Any:
    """Returns the array at a path."""
    node, inside = _follow(module, path)
    value = node.get_value() if isinstance(node, nnx.Variable) else node
    for word in inside:
        value = value[word]
    return value


def _set(module: nnx.Module, path: tuple[Any, ...], x: Any) -> None:
    """Puts an array at a path."""
    node, inside = _follow(module, path)
    if isinstance(node, nnx.Variable):
        leaves, treedef = jax.tree_util.tree_flatten_with_path(
            node.get_value()
        )
        # `variable[...] = x` would cast to the dtype that the Variable had.
        node.set_value(
            treedef.unflatten(
                x if _words(where) == inside else old for where, old in leaves
            )
        )
        return
    owner, _ = _follow(module, path[:-1])
    if isinstance(owner, nnx.Pytree):
        # `setattr` would ask anew whether a container may hold arrays.
        vars(owner)[str(path[-1])] = x
    elif isinstance(owner, dict | list):
        owner[path[-1]] = x
    else:  # an immutable container
        new = jax.tree_util.tree_map_with_path(
            lambda where, old: x if _words(where) == path[-1:] else old,
            owner,
            is_leaf=lambda child: child is not owner,
        )
        _set(module, path[:-1], new)


def _words(path: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the attributes, indices and keys on a path of `jax.tree`."""
    return tuple(
        getattr(entry, "idx", getattr(entry, "key", str(entry)))
        for entry in path
    )
