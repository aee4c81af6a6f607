"""A model of one library, as a live view in the other library sees it."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from common.layouts import Role


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A value of a model: an array or a setting.

    Attributes:
        role: what an array is for; `None` for a setting, which is no array.
        key: names the value in its model. All places of a tied array have
            the same key.
    """

    role: Role | None
    key: Hashable


@dataclasses.dataclass(frozen=True)
class Group:
    """A container in a model, such as a list of layers.

    Attributes:
        children: what is in the container, by index or key.
        is_sequence: whether the children go by index.
    """

    children: tuple[tuple[Any, "Leaf | Group | Part"], ...]
    is_sequence: bool


class Part(abc.ABC):
    """A model or one of its modules, without the values of its arrays.

    This is all that a view knows of the other library. Two parts are equal if
    they have the same structure and settings, so that a part can be static
    data of a view: compiled code is used again for an equal one.

    Attributes:
        origin: the module's class, whose methods the view has.
        base: the library's class of modules, whose own methods it has not.
        children: the values and modules in the module, by attribute.
        static: the other attributes of the module.
        structure: what tells two parts apart, and can be hashed.
        mode: the attribute of the view that switches between training and
            inference, if the module has such a setting.
    """

    origin: type
    base: type
    children: tuple[tuple[str, "Leaf | Group | Part"], ...]
    static: Mapping[str, Any]
    structure: Hashable
    mode: str | None = None

    @functools.cached_property
    def _hash(self) -> int:
        return hash((type(self), self.origin, self.structure))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: Any) -> bool:
        if self is other:
            return True
        return (
            type(self) is type(other)
            and self.origin is other.origin
            and self._hash == other._hash
            and self.structure == other.structure
        )

    def __deepcopy__(self, memo: Any) -> "Part":
        return self  # static data

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.origin.__name__})"

    @abc.abstractmethod
    def native(self, values: Mapping[Hashable, Any]) -> Any:
        """Makes the library's own object.

        Args:
            values: of all leaves, by key.
        """

    def read(self, values: Mapping[Hashable, Any], name: str) -> Any:
        """Reads an attribute of the module that is none of its children.

        Args:
            values: of the leaves, by key; those of the state may be missing.
            name: of the attribute.

        Raises:
            AttributeError: if the module has no such attribute.
        """
        if name in self.static:
            return self.static[name]
        if hasattr(self.origin, name) or hasattr(self.origin, "__getattr__"):
            return self._compute(values, name)
        raise AttributeError(
            f"{self.origin.__name__!r} object has no attribute {name!r}"
        )

    @abc.abstractmethod
    def _compute(self, values: Mapping[Hashable, Any], name: str) -> Any:
        """Computes an attribute, such as a property."""

    @abc.abstractmethod
    def call(
        self,
        values: Mapping[Hashable, Any],
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Any, dict[Hashable, Any]]:
        """Calls a method of the module.

        Args:
            values: of all leaves, by key.
            name: of the method.
            args: its arguments.
            kwargs: its keyword arguments.

        Returns:
            The outputs, and the values that the call changed, by key.
        """


def walk(
    node: Any, what: Part | Group, child: Callable[[Any, Any], Any]
) -> Iterator[tuple[Leaf, Any]]:
    """Yields each leaf below a node of a view, with what stands in its place.

    Args:
        node: a view, or a container in one.
        what: the part or group that it shows.
        child: returns what a node has at an attribute, index or key.
    """
    for word, inner in what.children:
        value = child(node, word)
        if isinstance(inner, Leaf):
            yield inner, value
        else:
            yield from walk(value, inner, child)
