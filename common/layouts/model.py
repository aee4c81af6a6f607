"""The canonical form of all arrays of a model, over either library."""

import abc
import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr

from common.layouts.composition import apply, invert
from common.layouts.joins import Concatenate
from common.layouts.layout import Layout, Source
from common.layouts.rules import EACH, Place, Role
from common.layouts.simplification import simplify
from common.layouts.stacks import Stacked
from common.layouts.steps import Cast, KeyData, Step

STATE = re.compile(r"^state\.get\(|\)(?=$|\[)")
WORDS = re.compile(r"(\w+)|\['(.+?)'\]")


@dataclasses.dataclass(frozen=True)
class NativeArray:
    """An array of a native object.

    Attributes:
        path: where it is, in the library's own notation.
        value: the array, or a `jax.ShapeDtypeStruct` in its place.
        role: what it is for.
        place: where it is in the canonical form.
        is_counter: whether it counts draws from a random stream.
    """

    path: str
    value: Any
    role: Role
    place: Place
    is_counter: bool = False

    @property
    def name(self) -> str:
        """Its canonical name."""
        return self.place.names[0]

    @property
    def dotted(self) -> str:
        """Its path with dots: `layers.0.weight` for `.layers[0].weight`."""
        path = STATE.sub("", self.path)
        return ".".join(a or b for a, b in WORDS.findall(path)[1:])

    def dtype_steps(self) -> tuple[Step, ...]:
        """Returns the steps to the canonical dtype, which are the last."""
        dtype = self.value.dtype
        if is_key(self.value):
            return (KeyData(_key_impl(self.value)),)
        counts = self.is_counter or self.role is Role.BUFFER
        if counts and jnp.issubdtype(dtype, jnp.integer) and dtype != "int32":
            return (Cast(dtype.name, "int32"),)
        return ()


def is_key(x: Any) -> bool:
    """Returns whether an array of JAX or NumPy is a typed PRNG key."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


class ModelLayouts(abc.ABC):
    """Names, shapes and roles of all arrays of a model, and their layouts.

    A library's `Layouts` is made from a native object, whose arrays may be
    `jax.ShapeDtypeStruct`s, and serves every object of the same structure.

    Attributes:
        roles: of each array, by canonical name.
        shapes: of each array, by canonical name, in canonical axis order.
        aliases: the canonical name of each tied array, by its other names.
        canonical: how each canonical array is made from native ones, whose
            names are their paths.
        native: how each native array is made from canonical ones.
    """

    aliases: Mapping[str, str]

    def __init__(self, arrays: Iterable[NativeArray]):
        """Gives each array a name and a layout.

        Raises:
            ValueError: if two arrays have the same name.
        """
        self._arrays = list(arrays)
        self.roles: dict[str, Role] = {}
        self.canonical: dict[str, Layout] = {}
        self._stacks: dict[str, Stacked] = {}
        named: dict[str, Layout] = {}
        self._by_path = {array.path: array for array in self._arrays}
        by_name = collections.defaultdict(list)
        for array in self._arrays:
            by_name[array.name].append(array)
        for name, group in by_name.items():
            first, shape = group[0], tuple(group[0].value.shape)
            if EACH.search(name):
                _require_alone(name, group)
                stack = Stacked(name, first.path, shape)
                parts = stack.parts()
                if first.role is Role.PARAMETER and parts:
                    self._stacks[stack.names[0]] = stack
            else:
                parts = {name: _joined(name, group)}
            for one in parts.keys() & named.keys():
                raise _ambiguous(one, "a stack and another array")
            named |= parts
            for one in parts:
                shape = named[one].shape
                steps = first.place.steps(shape) + first.dtype_steps()
                self.canonical[one] = named[one].then(*steps)
                self.roles[one] = first.role
        self.shapes = {n: x.shape for n, x in self.canonical.items()}
        self.native = invert(self.canonical)
        parameters = set(self.names(Role.PARAMETER))
        self._named = {n: x for n, x in named.items() if n in parameters}
        self._canonical = {n: self.canonical[n] for n in self._named}
        self._from_names = invert(self._named)
        self._from_canonical = invert(self._canonical)
        self._of_stacks = self._named
        if self._stacks:
            self._of_stacks = self._with_whole_stacks()
        self._from_stacks = invert(self._of_stacks)

    def names(self, *roles: Role) -> list[str]:
        """Returns the canonical names of the arrays of some roles, or all."""
        roles = roles or tuple(Role)
        return [name for name, role in self.roles.items() if role in roles]

    def dotted(self) -> dict[str, Layout]:
        """Returns how each array is made of arrays with dotted names."""
        sources = {
            array.path: Layout.of(array.dotted, array.value.shape)
            for array in self._arrays
        }
        return {
            name: simplify(layout.substitute(sources))
            for name, layout in self.canonical.items()
        }

    def read(self, native: Any, *roles: Role) -> dict[str, Any]:
        """Returns the canonical arrays of a native object.

        Args:
            native: of the structure that this was made from.
            roles: of the arrays to read; all of them by default.
        """
        arrays = self.flatten(native)
        return {
            name: self.canonical[name].apply(arrays)
            for name in self.names(*roles)
        }

    def write(
        self, native: Any, arrays: Mapping[str, Any], *roles: Role
    ) -> Any:
        """Returns the native object with canonical arrays written into it.

        Args:
            native: of the structure that this was made from. An NNX module
                is written to in place, and returned.
            arrays: by canonical name, all of these roles and no others.
            roles: of the arrays to write; all of them by default.

        Raises:
            ValueError: naming the arrays that are missing, or that the native
                object does not have.
        """
        self.require_names(arrays, *roles)
        new = {}
        for path, layout in self.native.items():
            if layout.sources[0].name in arrays:
                x = jnp.asarray(layout.apply(arrays))
                dtype = self._by_path[path].value.dtype
                if not (jnp.issubdtype(dtype, jnp.inexact) or is_key(x)):
                    x = x.astype(dtype)
                new[path] = x
        return self.replace(native, new)

    def require_names(self, names: Iterable[str], *roles: Role) -> None:
        """Checks that names are those of the arrays of some roles.

        Raises:
            ValueError: naming those that are missing or unknown.
        """
        got, expected = set(names), set(self.names(*roles))
        if got != expected:
            what = ", ".join(role.value for role in roles or Role)
            raise ValueError(
                f"{what}: got nothing for {sorted(expected - got)} and "
                f"arrays for {sorted(got - expected)}, which the model does "
                f"not have, expected {sorted(expected)}. Correct the names in "
                "the spec, the model's attributes, or the layer's rule in "
                "`rules.py`."
            )

    def to_names(self, tree: Any) -> Any:
        """Replaces each parameter tree in a tree by a flat dict, by name.

        The arrays keep their native axis order and are left alone, so this
        costs nothing in a compiled program. Only arrays that the library
        splits or stacks are joined or taken apart.
        """
        return self._map_native(self._named, tree)

    def to_native(self, tree: Any) -> Any:
        """Inverts `to_names`."""
        return self._map_names(self._from_names, tree)

    @property
    def stacks(self) -> dict[str, Stacked]:
        """The parameters that hold those of several layers.

        They go by the name that the parameter of the first layer has.
        """
        return dict(self._stacks)

    def to_stacks(self, tree: Any) -> Any:
        """Like `to_names`, but takes no stack apart.

        A stack goes by the name that the parameter of its first layer has.
        """
        return self._map_native(self._of_stacks, tree)

    def from_stacks(self, tree: Any) -> Any:
        """Inverts `to_stacks`."""
        return self._map_names(self._from_stacks, tree)

    def to_canonical(self, tree: Any) -> Any:
        """Replaces each parameter tree by a dict in canonical axis order.

        Arrays of another shape than the parameter's keep their axis order.
        """
        return self._map_native(self._canonical, tree)

    def from_canonical(self, tree: Any) -> Any:
        """Inverts `to_canonical`."""
        return self._map_names(self._from_canonical, tree)

    def _with_whole_stacks(self) -> dict[str, Layout]:
        """Returns the layouts of the parameters, of stacks as a whole."""
        found = {}
        members = {n for x in self._stacks.values() for n in x.names}
        for name, layout in self._named.items():
            if name in self._stacks:
                stack = self._stacks[name]
                found[name] = Layout.of(stack.path, stack.shape)
            elif name not in members:
                found[name] = layout
        return found

    def _without_elements(self, path: str) -> Any:
        """Makes a stack of no layers, which has no canonical name."""
        like = self._by_path[path].value
        return jnp.zeros(like.shape, like.dtype)

    def _map_native(self, layouts, tree):
        def replace(x):
            if not self.is_parameters(x):
                return x
            return apply(layouts, self.flatten_parameters(x))

        return jax.tree.map(replace, tree, is_leaf=self.is_parameters)

    def _map_names(self, layouts, tree):
        names = {s.name for x in layouts.values() for s in x.sources}

        def is_named(x):
            return isinstance(x, dict) and x.keys() == names

        def replace(x):
            if not is_named(x):
                return x
            return self.unflatten_parameters(apply(layouts, x))

        return jax.tree.map(replace, tree, is_leaf=is_named)

    @property
    def arrays(self) -> tuple[NativeArray, ...]:
        """Every array of the native object, each tied array once."""
        return tuple(self._arrays)

    @abc.abstractmethod
    def flatten(self, native: Any) -> dict[str, Any]:
        """Returns all arrays of a native object, by path."""

    @abc.abstractmethod
    def replace(self, native: Any, arrays: dict[str, Any]) -> Any:
        """Returns a native object with other arrays at some paths.

        An NNX module is changed in place, and returned.
        """

    @abc.abstractmethod
    def is_parameters(self, x: Any) -> bool:
        """Tells the library's trees of parameters from other nodes."""

    @abc.abstractmethod
    def flatten_parameters(self, tree: Any) -> dict[str, Any]:
        """Returns what is in the places of the parameters, by path.

        Args:
            tree: the library's own tree of parameters, such as gradients.
        """

    @abc.abstractmethod
    def unflatten_parameters(self, leaves: dict[str, Any]) -> Any:
        """Inverts `flatten_parameters`."""


def _joined(name: str, group: list[NativeArray]) -> Layout:
    """Returns the layout of an array, or of several blocks of one."""
    if group[0].place.block is None:
        _require_alone(name, group)
        return Layout.of(group[0].path, group[0].value.shape)
    if len({array.place.block for array in group}) != len(group):
        _require_alone(name, group)
    group = sorted(group, key=lambda array: array.place.block or 0)
    sources = tuple(Source(a.path, tuple(a.value.shape)) for a in group)
    axis = len(sources[0].shape) - 1
    sizes = tuple(source.shape[axis] for source in sources)
    return Layout(sources, Concatenate(axis, sizes))


def _require_alone(name: str, group: list[NativeArray]) -> None:
    if len(group) > 1:
        raise _ambiguous(
            name, "the arrays " + " and ".join(array.path for array in group)
        )


def _ambiguous(name: str, what: str) -> ValueError:
    return ValueError(
        f"canonical name {name!r}: got {what}, expected one. Rename one of "
        "the attributes, or give its layer a rule."
    )


def _key_impl(keys: Any) -> str:
    """Returns the generator of typed keys, also of abstract ones."""
    found = []
    jax.eval_shape(lambda keys: found.append(jr.key_impl(keys)), keys)
    return str(found[0])
