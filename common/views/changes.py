"""What a call has changed: values that are other objects may be the same.

A transformation of NNX, such as `nnx.scan`, returns all Variables of a module,
and most of them are as before. Under a trace, only the program shows it.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

SAME = frozenset(
    {"copy", "copy_p", "optimization_barrier", "pvary", "sharding_constraint"}
)
"""Primitives whose outputs are their operands."""


def is_same(x: Any, previous: Any) -> bool:
    """Tells whether two trees hold the very same arrays."""
    leaves, treedef = jax.tree.flatten(x)
    old, old_treedef = jax.tree.flatten(previous)
    return treedef == old_treedef and all(
        new is old for new, old in zip(leaves, old, strict=True)
    )


def is_equal(x: Any, previous: Any) -> bool:
    """Tells whether two trees hold equal arrays; never under a trace."""
    leaves, treedef = jax.tree.flatten(x)
    old, old_treedef = jax.tree.flatten(previous)
    return treedef == old_treedef and all(
        not isinstance(new, Tracer)
        and new.dtype == old.dtype
        and np.array_equal(np.asarray(new), np.asarray(old))
        for new, old in zip(leaves, old, strict=True)
    )


def kept(function: Callable[..., list[Any]], given: list[Any]) -> list[bool]:
    """Tells which of its arguments a function returns unchanged.

    Args:
        function: returns a list of as many trees as it has arguments.
        given: its arguments.
    """
    found = forwarded(jax.make_jaxpr(function)(*given).jaxpr)
    sizes = [len(jax.tree.leaves(x)) for x in given]
    if len(found) != sum(sizes):
        return [False] * len(given)
    flags = iter(i == k for k, i in enumerate(found))
    return [all([next(flags) for _ in range(size)]) for size in sizes]


def check_same_type(what: str, previous: Any, x: Any) -> None:
    """Checks that a new value has the structure, shapes and dtypes of before.

    Raises:
        ValueError: if it has not.
    """
    old, new = (
        jax.tree.map(lambda x: jax.typeof(x).str_short(), tree)
        for tree in (previous, x)
    )
    if old != new:
        raise ValueError(
            f"{what}: got {new}, expected {old}, as before the call. An "
            "`eqx.nn.State` cannot change shapes or dtypes; create the "
            "Variable with the value's final shape and dtype."
        )


def forwarded(jaxpr: Jaxpr) -> list[int | None]:
    """Returns for each output of a program the index of an equal input.

    Args:
        jaxpr: the program.

    Returns:
        The indices. `None` stands for an output that is computed, or whose
        source is unknown.
    """
    sources: dict[Any, int] = {x: i for i, x in enumerate(jaxpr.invars)}
    for eqn in jaxpr.eqns:
        for x, index in zip(eqn.outvars, _passed(eqn), strict=True):
            operand = None if index is None else eqn.invars[index]
            if operand is not None and not isinstance(operand, Literal):
                if operand in sources:
                    sources[x] = sources[operand]
    return [
        None if isinstance(x, Literal) else sources.get(x)
        for x in jaxpr.outvars
    ]


def _passed(eqn: Any) -> list[int | None]:
    """Returns for each output of an equation the index of an equal operand."""
    name, params = eqn.primitive.name, eqn.params
    if name in SAME:
        return list(range(len(eqn.outvars)))
    if name == "scan":
        consts, carry = params["num_consts"], params["num_carry"]
        return [
            i if i is not None and _stays(i, k, consts, carry) else None
            for k, i in enumerate(forwarded(params["jaxpr"].jaxpr))
        ]
    if name == "while":
        consts = params["body_nconsts"]
        first = params["cond_nconsts"] + consts
        return [
            first + k if i == consts + k else None
            for k, i in enumerate(forwarded(params["body_jaxpr"].jaxpr))
        ]
    if name == "cond":
        branches = [forwarded(branch.jaxpr) for branch in params["branches"]]
        return [
            None if None in found or len(set(found)) > 1 else 1 + found[0]
            for found in zip(*branches, strict=True)
        ]
    for inner in params.values():
        if isinstance(inner, ClosedJaxpr):
            inner = inner.jaxpr
        if isinstance(inner, Jaxpr) and _has_arguments(inner, eqn):
            return forwarded(inner)
    return [None] * len(eqn.outvars)


def _stays(i: int, k: int, consts: int, carry: int) -> bool:
    """Tells whether output k of a scan is operand i, if it is in the body."""
    return i == consts + k if k < carry else i >= consts + carry


def _has_arguments(inner: Jaxpr, eqn: Any) -> bool:
    """Tells whether an equation calls a program with its own operands."""
    return len(inner.invars) == len(eqn.invars) and len(inner.outvars) == len(
        eqn.outvars
    )
