"""Teaches a user's own leaf layer, and a user's stacked layers."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from common.layouts import Leaf, Part, Rule, Shape, Step
from common.porting.grammar import ARROW, Call, parse_call
from common.porting.steps import build_steps
from common.registry import find_porting, library_of_class


def register_layer(
    kind: type, arrays: Mapping[str, str | tuple[str, ...]]
) -> None:
    """Teaches the canonical form of a layer, for `port` and for `State`.

    The layer's arrays then match those of any layer with the same canonical
    names: `weight` and `bias`, as in PyTorch, and for a batch norm also
    `running_mean` and `running_var`.

    Args:
        kind: a class that derives from `eqx.Module` or `nnx.Module`.
        arrays: by attribute, the canonical name of its array, and before it
            the steps that lead to PyTorch's axis order, as in
            `"transpose -> weight"`. A `StateIndex` or a Variable that holds
            several arrays has a tuple of names.

    Raises:
        TypeError: if the class is of neither library.
        ValueError: if a step cannot be read.

    Example:

        >>> import equinox as eqx
        >>> import jax
        >>> from common.porting import register_layer
        >>> class Dense(eqx.Module):  # x @ w + b
        ...     w: jax.Array
        ...     b: jax.Array
        >>> register_layer(Dense, {"w": "transpose -> weight", "b": "bias"})
    """
    leaves = {name: _leaf(kind, name, text) for name, text in arrays.items()}
    find_porting(library_of_class(kind)).RULES[kind] = Rule(leaves)


def register_stack(kind: type, *attributes: str) -> None:
    """Teaches which parts of a model are several layers, stacked.

    The layers are made by `eqx.filter_vmap` or `nnx.vmap`, so that each array
    has them along its first axis. Their canonical names are then numbered as
    in a list: `blocks.0.weight`, `blocks.1.weight`. `port` carries them to and
    from a model that has a list in their place, and so does a `State`.

    Args:
        kind: the class of the model, which derives from `eqx.Module` or
            `nnx.Module`.
        *attributes: its attributes that hold stacked layers. One that holds a
            list or a tuple is not stacked.

    Raises:
        TypeError: if the class is of neither library.
        ValueError: if no attribute is named.

    Example:

        >>> import equinox as eqx
        >>> import jax
        >>> from common.porting import register_stack
        >>> class Scanned(eqx.Module):
        ...     blocks: eqx.nn.Linear
        ...     def __init__(self, key):
        ...         def make(key):
        ...             return eqx.nn.Linear(4, 4, key=key)
        ...         keys = jax.random.split(key, 3)
        ...         self.blocks = eqx.filter_vmap(make)(keys)
        >>> register_stack(Scanned, "blocks")
    """
    if not attributes:
        raise ValueError(
            f"register_stack of {kind.__name__}: got no attribute, expected "
            'the names of some. Pass them, as in `register_stack(Model, "'
            'blocks")`.'
        )
    rules = find_porting(library_of_class(kind)).RULES
    old = rules.get(kind, Rule())
    parts = {
        name: Part(name, stacked=functools.partial(_is_stacked, name))
        for name in attributes
    }
    rules[kind] = Rule(old.arrays, {**old.parts, **parts})


def _is_stacked(attribute: str, model: Any) -> bool:
    """Tells whether an attribute holds one stack, and no list of layers."""
    return not isinstance(getattr(model, attribute), Sequence)


def _leaf(kind: type, attribute: str, text: str | tuple[str, ...]) -> Leaf:
    if not isinstance(text, str):
        return Leaf(tuple(text))
    *steps, name = (word.strip() for word in text.split(ARROW))
    if not name or "." in name:
        raise ValueError(
            f"register_layer {kind.__name__}.{attribute}: got {text!r}, "
            "expected a name, or steps and a name, as in 'transpose -> "
            "weight'. End the text with the canonical name, without a dot."
        )
    if not steps:
        return Leaf(name)
    calls = tuple(map(parse_call, steps))
    return Leaf(name, functools.partial(_steps, calls))


def _steps(
    calls: tuple[Call, ...], layer: Any, shape: Shape
) -> tuple[Step, ...]:
    """Builds the steps that lead to canonical order."""
    del layer
    made: list[Step] = []
    for call in calls:
        steps = build_steps(call, shape)
        for step in steps:
            shape = step.output(shape)
        made += steps
    return tuple(made)
