"""The form of a library's rules: what a layer's arrays are called.

A library's rules are a dict of `Rule` by layer class. They are looked up along
the class's method resolution order, attribute by attribute: what the rule of a
subclass leaves out is taken from the rule of its base class.
"""

import dataclasses
import enum
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common.layouts.steps import Shape, Step


class Role(enum.Enum):
    """What an array of a model is for; the value is its group in a State."""

    PARAMETER = "params"
    BUFFER = "buffers"
    CONSTANT = "constants"
    RANDOM_STATE = "rng"


LayoutRule = Callable[[Any, Shape], tuple[Step, ...]]
"""`(layer, native shape) -> steps` that lead to the canonical order."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """The canonical form of an array of a layer.

    Attributes:
        name: its canonical name, or several if the attribute holds several
            arrays.
        layout: leads to the canonical order; the order is kept if `None`.
    """

    name: str | tuple[str, ...]
    layout: LayoutRule | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """The canonical form of a sublayer.

    Attributes:
        name: its canonical name. If `None`, its arrays are named as arrays of
            the layer that holds it.
        renamed: the new names of some of its arrays, by their old names.
        layouts: the layouts of some of its arrays, by attribute; the rules of
            the sublayer's type apply to the others.
        block: if set, its arrays are parts of canonical ones, which are
            concatenated along their last native axis in this order.
        item: if the sublayer is a list, `(layer, index) -> name` of an item;
            `each(1)` if the item stacks several layers, numbered from 1.
        stacked: `layer -> bool`, whether the sublayer is several layers of
            equal structure whose arrays are stacked. They are numbered from
            0, as in a list.
    """

    name: str | None = None
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    layouts: Mapping[str, LayoutRule] = dataclasses.field(default_factory=dict)
    block: int | None = None
    item: Callable[[Any, int], str] | None = None
    stacked: Callable[[Any], bool] | None = None


@dataclasses.dataclass(frozen=True)
class Rule:
    """The canonical form of a type of layer.

    Attributes:
        arrays: the names and layouts of the layer's arrays, by attribute.
        parts: the names of its sublayers, by attribute.
    """

    arrays: Mapping[str, Leaf] = dataclasses.field(default_factory=dict)
    parts: Mapping[str, Part] = dataclasses.field(default_factory=dict)


Rules = Mapping[type, Rule]

EACH = re.compile(r"\*(\d+)")
"""In a name, the number of each layer whose arrays are stacked."""


def each(first: int = 0) -> str:
    """Returns the word that stands for the number of each stacked layer.

    Args:
        first: the number of the first layer.
    """
    return f"*{first}"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an array is in the canonical form of a model.

    Attributes:
        names: its canonical names: several if it holds several arrays.
        layer: the layer that has the array.
        layout: the rule for the array, if there is one.
        block: its position among the arrays that are concatenated under its
            name; `None` if it has the name alone.
    """

    names: tuple[str, ...]
    layer: Any
    layout: LayoutRule | None
    block: int | None = None

    def steps(self, shape: Shape) -> tuple[Step, ...]:
        """Returns the steps that lead to the canonical order."""
        return () if self.layout is None else self.layout(self.layer, shape)


def resolve(rules: Rules, trail: Sequence[tuple[Any, Any]]) -> Place:
    """Returns the canonical place of an array.

    Args:
        rules: by layer class.
        trail: the path to the array: each node, and the attribute, the index
            or the key that leads on from it.
    """
    words: list[str] = []
    part, renamed, item = Part(), {}, None
    for node, word in trail[:-1]:
        found = find_part(rules, node, word)
        if found is None:
            name = item(word) if item is not None else str(word)
            part = Part(name)
        else:
            part = found
        item = None
        if found is not None and found.item is not None:
            item = _bind(found.item, node)
        if part.name is None:
            renamed = {**renamed, **part.renamed}
        else:
            words.append(renamed.get(part.name, part.name))
            renamed = {}
        if part.stacked is not None and part.stacked(node):
            words.append(each())
    node, word = trail[-1]
    leaf = find_leaf(rules, node, word) or Leaf(
        item(word) if item is not None else str(word)
    )
    names = (leaf.name,) if isinstance(leaf.name, str) else leaf.name
    return Place(
        tuple(".".join([*words, renamed.get(n, n)]) for n in names),
        node,
        part.layouts.get(word, leaf.layout),
        part.block,
    )


def _bind(item: Callable[[Any, int], str], layer: Any) -> Callable[[int], str]:
    def name(index):
        return item(layer, index)

    return name


def find_leaf(rules: Rules, layer: Any, attribute: Any) -> Leaf | None:
    """Returns the rule for an array of a layer, if there is one."""
    for kind in type(layer).__mro__:
        if kind in rules and attribute in rules[kind].arrays:
            return rules[kind].arrays[attribute]
    return None


def find_part(rules: Rules, layer: Any, attribute: Any) -> Part | None:
    """Returns the rule for a part of a layer, if there is one."""
    for kind in type(layer).__mro__:
        if kind in rules and attribute in rules[kind].parts:
            return rules[kind].parts[attribute]
    return None


def lift(shape: Shape, rank: int, *steps: Step) -> tuple[Step, ...]:
    """Returns steps that act on the last axes of an array.

    An ensemble of layers, made with a library's `vmap`, has leading axes that
    a layer's own rule does not know.

    Args:
        shape: of the array.
        rank: the number of axes that the steps are written for.
        steps: act on an array of that many axes.
    """
    leading = shape[: len(shape) - rank]
    return tuple(step.lifted(leading) for step in steps)


def of_one_layer(shape: Shape, rank: int) -> Shape:
    """Returns a shape without the leading axes of an ensemble of layers."""
    return shape[len(shape) - rank :]
