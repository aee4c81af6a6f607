"""Whether an optimizer gives the same result for every order of the axes.

The libraries store one parameter in different axis orders and shapes: a
dense kernel is (out, in) in Equinox and (in, out) in Flax. An elementwise
optimizer, such as Adam, commutes with every such change. One that factors a
matrix into rows and columns, or that draws an array of noise, does not.

The answer is read off the optimizer's jaxpr, so it costs one trace and
compiles nothing, covers both branches of every condition, and applies to the
parameters' real shapes. It is conservative: unrecognized programs are treated
as not equivariant.
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.random as jr
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from common.layouts.model import is_key

ELEMENTWISE = frozenset(
    "abs add add_any and atan2 cbrt ceil clamp convert_element_type copy "
    "copy_p cos div eq erf exp exp2 expm1 floor ge gt imag integer_pow "
    "is_finite le log log1p logistic lt max min mul ne neg nextafter not or "
    "pow real reduce_precision rem round rsqrt select_n sign sin sqrt square "
    "stop_gradient sub tan tanh xor".split()
)
"""Primitives that act on each element by itself."""

REDUCTIONS = frozenset(
    "reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum "
    "reduce_xor".split()
)

RESHAPES = frozenset("broadcast_in_dim expand_dims reshape squeeze".split())
"""Primitives that keep the row-major order if they keep the size."""

CALLS = {
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat": "jaxpr",
}
"""Primitives that call one jaxpr, and the parameter that holds it."""

UNIFORM = object()
"""Tag of an array whose elements are equal, such as any scalar."""

FIXED = object()
"""Tag of an array that depends on no parameter's axis order."""


class _Unrecognized(Exception):
    """An equation that is not known to be equivariant."""


def is_equivariant(
    update: Callable[..., Any],
    canonical: Sequence[Any],
    native: Sequence[Any],
    names: Collection[str],
) -> bool:
    """Returns whether an update commutes with a change of axis order.

    The update is traced for both sets of shapes. It is equivariant if the
    two programs are the same but for these shapes, and if in each of them
    every array that corresponds to a parameter is only combined elementwise
    with arrays of the same parameter, or reduced to a scalar as a whole.

    Args:
        update: a function of trees of arrays. A leaf whose last dict key is
            the name of a parameter corresponds to that parameter.
        canonical: the arguments' shapes and dtypes in canonical axis order.
        native: the same in the order of one library.
        names: of the parameters.
    """
    left, left_out = jax.make_jaxpr(update, return_shape=True)(*canonical)
    right, _ = jax.make_jaxpr(update, return_shape=True)(*native)
    tags = _tags(tuple(canonical), names)
    try:
        found = _interpret(left, right, tags)
    except _Unrecognized:
        return False
    return all(
        tag is UNIFORM or tag == expected
        for tag, expected in zip(found, _tags(left_out, names), strict=True)
    )


def _tags(tree: Any, names: Collection[str]) -> list[Any]:
    """Returns a parameter's name, `UNIFORM` or `FIXED` for each leaf."""

    def tag(path, leaf):
        last: Any = path[-1] if path else None
        if isinstance(last, jax.tree_util.DictKey) and last.key in names:
            return last.key
        return UNIFORM if math.prod(leaf.shape) == 1 else FIXED

    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [tag(path, leaf) for path, leaf in leaves]


def _interpret(
    left: ClosedJaxpr, right: ClosedJaxpr, tags: Sequence[Any]
) -> list[Any]:
    """Returns the tags of a jaxpr's outputs, given those of its inputs."""
    if len(left.jaxpr.eqns) != len(right.jaxpr.eqns):
        raise _Unrecognized
    values: dict[Any, Any] = {}
    for variable, a, b in zip(
        left.jaxpr.constvars, left.consts, right.consts, strict=True
    ):
        values[variable] = _constant(a, b)
    values |= zip(left.jaxpr.invars, tags, strict=True)

    def read(a, b):
        if isinstance(a, Literal) != isinstance(b, Literal):
            raise _Unrecognized
        if isinstance(a, Literal):
            return _constant(a.val, b.val)
        return values[a]

    for a, b in zip(left.jaxpr.eqns, right.jaxpr.eqns, strict=True):
        if a.primitive is not b.primitive:
            raise _Unrecognized
        found = [read(*pair) for pair in zip(a.invars, b.invars, strict=True)]
        values |= zip(a.outvars, _apply(a, b, found), strict=True)
    return [
        read(*pair)
        for pair in zip(left.jaxpr.outvars, right.jaxpr.outvars, strict=True)
    ]


def _constant(a: Any, b: Any) -> Any:
    # Python code may compute a constant from a shape.
    a, b = _data(a), _data(b)
    if a.shape != b.shape or a.tobytes() != b.tobytes():  # NaN equals NaN
        raise _Unrecognized
    return UNIFORM if a.size == 1 else FIXED


def _data(x: Any) -> np.ndarray:
    is_array = isinstance(x, jax.Array)
    return np.asarray(jr.key_data(x) if is_array and is_key(x) else x)


def _apply(a: Any, b: Any, tags: list[Any]) -> list[Any]:
    """Returns the tags of an equation's outputs."""
    name = a.primitive.name
    if name in CALLS:
        left, right = (_closed(eqn.params[CALLS[name]]) for eqn in (a, b))
        return _interpret(left, right, tags)
    if name == "cond":
        return _branches(a, b, tags)
    if name in ELEMENTWISE and FIXED not in tags:
        if a.params != b.params:
            raise _Unrecognized
        return [_join(tags)]
    named = [tag for tag in tags if isinstance(tag, str)]
    if not named:
        return _independent(a, b, tags)
    if len(a.outvars) == 1 and len(set(named)) == 1 and FIXED not in tags:
        size, other = (math.prod(x.outvars[0].aval.shape) for x in (a, b))
        is_scalar = size == other == 1
        if name in REDUCTIONS and is_scalar:
            return [UNIFORM]
        if name in RESHAPES and size == math.prod(a.invars[0].aval.shape):
            return named
        if name == "dot_general" and is_scalar and _is_inner_product(a):
            return [UNIFORM]
    raise _Unrecognized


def _independent(a: Any, b: Any, tags: list[Any]) -> list[Any]:
    """Returns the tags of results that no parameter's order affects."""
    if a.primitive.name in RESHAPES and FIXED not in tags:
        return [UNIFORM]
    found = []
    for left, right in zip(a.outvars, b.outvars, strict=True):
        # A random draw, for one, depends on the shape that it has.
        if getattr(left.aval, "shape", ()) != getattr(right.aval, "shape", ()):
            raise _Unrecognized
        size = math.prod(getattr(left.aval, "shape", ()))
        found.append(UNIFORM if size == 1 else FIXED)
    return found


def _branches(a: Any, b: Any, tags: list[Any]) -> list[Any]:
    index, *operands = tags
    if index is not UNIFORM:
        raise _Unrecognized
    branches = zip(a.params["branches"], b.params["branches"], strict=True)
    found = [_interpret(left, right, operands) for left, right in branches]
    return [_join(list(tags)) for tags in zip(*found, strict=True)]


def _join(tags: list[Any]) -> Any:
    """Returns the tag of a value that depends elementwise on several."""
    different = {tag for tag in tags if tag is not UNIFORM}
    if len(different) > 1:
        raise _Unrecognized
    return different.pop() if different else UNIFORM


def _is_inner_product(eqn: Any) -> bool:
    (left, right), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    shapes = [variable.aval.shape for variable in eqn.invars]
    return (
        tuple(left) == tuple(right)
        and tuple(left_batch) == tuple(right_batch)
        and shapes[0] == shapes[1]
    )


def _closed(jaxpr: Any) -> ClosedJaxpr:
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, ())
