"""Teaches a user's own leaf layer."""

import functools
from collections.abc import Mapping
from typing import Any

from common.layouts import Leaf, Rule, Shape, Step
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
