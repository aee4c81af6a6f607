"""An optimizer over stacked layers: one program for all of them.

A library can stack the arrays of equal layers. To an optimizer that takes each
parameter alone, and those of all layers in the same way, the stack is one
parameter under `jax.vmap`. Then a training step takes no array apart, and its
program is as small for a hundred layers as for one. Whether an optimizer is of
this kind is read off its jaxpr, with the names and shapes of all parameters.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from common.layouts import Stacked
from common.training.equivariance import CALLS

Stacks = Mapping[str, Stacked]
"""Each stack, by the name of its first layer's parameter."""


class Value(NamedTuple):
    """What is known of a value in the program of an optimizer.

    Attributes:
        names: the parameters that it depends on.
        program: a digest of how it is computed, with one word in place of
            the parameter's name.
    """

    names: frozenset[str]
    program: int


def first_layers(names: Mapping[str, Any], stacks: Stacks) -> dict[str, Any]:
    """Returns the parameters outside of stacks and of each first layer."""
    others = {n for x in stacks.values() for n in x.names} - stacks.keys()
    return {name: x for name, x in names.items() if name not in others}


def is_same_in_layers(
    update: Callable[..., Any],
    whole: Sequence[Any],
    first: Sequence[Any],
    names: Mapping[str, Any],
    stacks: Stacks,
) -> bool:
    """Returns whether an optimizer may see each stack as one parameter.

    It may if what it returns for a parameter of a stack depends on no other
    parameter, is computed in the same way for all layers, and would be
    computed in the same way if there were only one.

    Args:
        update: a function of trees of arrays. A leaf whose last dict key is
            the name of a parameter belongs to that parameter.
        whole: the arguments' shapes and dtypes, with all parameters.
        first: the same with the parameters of `first_layers`.
        names: all parameters.
        stacks: which of them are stacked.
    """
    stack_of = {n: first for first, x in stacks.items() for n in x.names}
    results = _results(update, whole, names)
    expected = _results(update, first, names)
    if results is None or expected is None:
        return False
    for (path, name), value in results.items():
        alone = {name} if name in stack_of else set()
        if value.names & stack_of.keys() - alone or (
            alone and value.names - alone
        ):
            return False
        # What a step computes for a layer, it computes for the first.
        like = expected.get((path, stack_of.get(name or "", name)))
        if like is None or like.program != value.program:
            return False
    return True


def under_vmap(
    function: Callable[..., Any], stacks: Stacks
) -> Callable[..., Any]:
    """Returns a function of trees of stacks.

    Args:
        function: a function of trees in which each parameter of a stack has
            the shape that it has in one layer.
        stacks: the stacks.
    """
    # Outer axes first: the stack of a stack is mapped from outside.
    axes = dict.fromkeys(
        axis for stack in stacks.values() for axis in stack.axes
    )

    def axis_of(which, path, leaf):
        del leaf
        stack = stacks.get(_last(path) or "")
        return 0 if stack is not None and which in stack.axes else None

    def call(*args):
        mapped = function
        outputs = jax.eval_shape(function, *_of_one_layer(args, stacks))
        for which in reversed(axes):
            find = functools.partial(axis_of, which)
            mapped = jax.vmap(
                mapped,
                in_axes=jax.tree_util.tree_map_with_path(find, args),
                out_axes=jax.tree_util.tree_map_with_path(find, outputs),
            )
        return mapped(*args)

    return call


def _of_one_layer(tree: Any, stacks: Stacks) -> Any:
    """Returns the shapes of a tree without the axes of stacks."""

    def shape(path, x):
        stack = stacks.get(_last(path) or "")
        count = 0 if stack is None else len(stack.axes)
        return jax.ShapeDtypeStruct(x.shape[count:], x.dtype)

    return jax.tree_util.tree_map_with_path(shape, tree)


def _last(path: tuple[Any, ...]) -> str | None:
    """Returns the last dict key on a path, the name of a parameter."""
    for entry in reversed(path):
        if isinstance(entry, jax.tree_util.DictKey):
            return entry.key
        if not isinstance(entry, jax.tree_util.GetAttrKey):
            return None  # an attribute of an `nnx.Variable` may follow
    return None


Results = dict[tuple[str, str | None], Value]


def _results(
    update: Callable[..., Any], operands: Sequence[Any], names: Any
) -> Results | None:
    """Returns what is known of each result of an optimizer.

    Each goes by its path without the parameter's name, and by this name.
    """

    def place(path):
        name = _last(path)
        if name not in names:
            return jax.tree_util.keystr(path), None
        return jax.tree_util.keystr(path).replace(repr(name), ""), name

    jaxpr, out = jax.make_jaxpr(update, return_shape=True)(*operands)
    found, _ = jax.tree_util.tree_flatten_with_path(tuple(operands))
    inputs = []
    for path, _ in found:
        where, name = place(path)
        inputs.append(
            Value(frozenset([name] if name else []), hash(("in", where)))
        )
    try:
        values = _interpret(jaxpr, inputs)
    except TypeError:  # a parameter of an equation without a digest
        return None
    outputs, _ = jax.tree_util.tree_flatten_with_path(out)
    places = [place(path) for path, _ in outputs]
    return dict(zip(places, values, strict=True))


def _interpret(jaxpr: ClosedJaxpr, inputs: Sequence[Value]) -> list[Value]:
    values: dict[Any, Value] = {}
    for variable, x in zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True):
        values[variable] = _constant(x)
    values |= zip(jaxpr.jaxpr.invars, inputs, strict=True)

    def read(x):
        return _constant(x.val) if isinstance(x, Literal) else values[x]

    for eqn in jaxpr.jaxpr.eqns:
        operands = [read(x) for x in eqn.invars]
        values |= zip(eqn.outvars, _apply(eqn, operands), strict=True)
    return [read(x) for x in jaxpr.jaxpr.outvars]


def _apply(eqn: Any, operands: list[Value]) -> list[Value]:
    name = eqn.primitive.name
    if name in CALLS:
        inner = eqn.params[CALLS[name]]
        if not isinstance(inner, ClosedJaxpr):
            inner = ClosedJaxpr(inner, ())
        return _interpret(inner, operands)
    names = frozenset[str]().union(*(x.names for x in operands))
    program = hash(
        (
            name,
            tuple(x.program for x in operands),
            tuple((k, _printed(x)) for k, x in sorted(eqn.params.items())),
        )
    )
    return [
        Value(names, hash((program, i, str(x.aval))))
        for i, x in enumerate(eqn.outvars)
    ]


def _printed(x: Any) -> str:
    """Returns the text of a parameter of an equation.

    Raises:
        TypeError: if the text does not say everything.
    """
    for one in x if isinstance(x, tuple | list) else [x]:
        if isinstance(one, ClosedJaxpr) and one.consts:
            raise TypeError
    return str(x)


def _constant(x: Any) -> Value:
    x = np.asarray(x)
    return Value(frozenset(), hash((x.dtype.str, x.shape, x.tobytes())))
