"""Which arrays of the left model make which arrays of the right one."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from common.layouts import Layout, Role
from common.layouts.composition import compose
from common.native import NativeModel


@dataclasses.dataclass(frozen=True)
class Mapping:
    """A mapping between the arrays of two models.

    Attributes:
        layouts: by the dotted name of an array of the right model, the layout
            that makes it from arrays of the left model.
        origin: how the mapping was found.
    """

    layouts: dict[str, Layout]
    origin: str

    def sources(self, name: str) -> tuple[str, ...]:
        """Returns the left arrays that an array of the right is made of."""
        return tuple(x.name for x in self.layouts[name].sources)

    def targets(self, name: str) -> tuple[str, ...]:
        """Returns the right arrays that an array of the left is part of."""
        return tuple(x for x in self.layouts if name in self.sources(x))

    def trained(self, left: NativeModel, right: NativeModel) -> list[str]:
        """Returns the left arrays that both models train."""
        return [
            name
            for name, info in left.infos.items()
            if is_parameter(info)
            and self.targets(name)
            and all(is_parameter(right.infos[n]) for n in self.targets(name))
        ]

    def label_left(self, name: str) -> str:
        """Names an array of the left, and where it is in the right."""
        return _label((name,), self.targets(name))

    def label_right(self, name: str) -> str:
        """Names an array of the right, and what it is made of."""
        return _label(self.sources(name), (name,))


def is_parameter(info: Any) -> bool:
    """Tells arrays that are trained from others."""
    floating = jnp.issubdtype(info.value.dtype, jnp.floating)
    return info.role is Role.PARAMETER and floating


def _label(left: tuple[str, ...], right: tuple[str, ...]) -> str:
    if left == right:
        return left[0]
    return " ~ ".join(", ".join(names) for names in (left, right) if names)


def by_canonical_name(left: NativeModel, right: NativeModel) -> Mapping:
    """Matches the arrays of two models by equal canonical names.

    Raises:
        ValueError: naming the arrays that only one of the models has.
    """
    roles = Role.PARAMETER, Role.BUFFER
    ours, theirs = (
        {n: x.layouts.shapes[n] for n in x.layouts.names(*roles)}
        for x in (left, right)
    )
    if ours != theirs:
        only = [
            sorted(f"{name} {shape}" for name, shape in a.items() - b.items())
            for a, b in ((ours, theirs), (theirs, ours))
        ]
        raise ValueError(
            f"rules: got the arrays {only[0]} of the left and {only[1]} of "
            "the right, expected equal names and shapes. Pass `rules`: a "
            "plan, an alignment, or text."
        )
    paths = {info.path: name for name, info in left.infos.items()}
    dotted = {
        path: Layout.of(paths[path], info.value.shape)
        for info in left.infos.values()
        for path in (info.path,)
    }
    carried = compose(left.layouts.canonical, right.layouts.native)
    layouts = {
        info.dotted: carried[info.path].substitute(dotted)
        for info in right.infos.values()
        if info.role in roles
    }
    return Mapping(layouts, "equal names")


def mapping_of(
    left: NativeModel, right: NativeModel, xs: Any, rules: Any = None
) -> Mapping:
    """Finds the mapping between the arrays of two models.

    Args:
        left: a model.
        right: another one.
        xs: the inputs of both.
        rules: a plan, an alignment, or layouts by name.

    Raises:
        ValueError: if the arrays do not match.
    """
    del xs
    if rules is None:
        return by_canonical_name(left, right)
    layouts = getattr(rules, "layouts", rules)
    return Mapping(dict(layouts), "rules")
