"""Traces a function or a module to a jaxpr with labeled inputs."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass
class Traced:
    """A traced function.

    Attributes:
        jaxpr: the closed jaxpr.
        inputs: the arrays to evaluate it with.
        labels: the path of each input in the arguments or in the module.
        tree: the structure of the outputs.
        paths: the path of each output.
    """

    jaxpr: Any
    inputs: list[Any]
    labels: list[str]
    tree: Any
    paths: list[str]


def trace(
    side: str,
    function: Any,
    args: Sequence[Any],
    dtype: str | None,
    name_modules: Callable[[Any], Any],
) -> Traced:
    """Traces a function.

    Args:
        side: names the function in error messages, `"left"` or `"right"`.
        function: the function, or a module with a `__call__`.
        args: the arguments to call it with.
        dtype: the dtype to cast floats to, or `None` to keep theirs.
        name_modules: replaces the modules in a pytree by copies that record
            their path in JAX's name stack.

    Raises:
        TypeError: if the function cannot be traced.
    """
    module = function if _is_module(function) else None
    leaves, treedef = jax.tree_util.tree_flatten_with_path(
        name_modules((module, tuple(args)))
    )
    arrays = [(path, x) for path, x in leaves if _is_array(x)]
    inputs = [_cast(x, dtype) for _, x in arrays]
    labels = [_label(path) for path, _ in arrays]
    shapes: list[Any] = []

    def flat(*inputs):
        remaining = iter(inputs)
        module, args = jax.tree.unflatten(
            treedef,
            [next(remaining) if _is_array(x) else x for _, x in leaves],
        )
        out = (function if module is None else module)(*args)
        found, tree = jax.tree_util.tree_flatten_with_path(out)
        shapes.append((tree, [jax.tree_util.keystr(p) for p, _ in found]))
        return [x for _, x in found]

    name = getattr(function, "__name__", type(function).__name__)
    try:
        jaxpr = jax.make_jaxpr(flat)(*inputs)
    except Exception as error:
        raise TypeError(
            f"{side} function {name!r}: got {type(error).__name__} while "
            f"tracing ({_first_line(error)}), expected a function of arrays "
            "that `jax.jit` accepts. Check the inputs' shapes "
            f"({', '.join(map(_describe, inputs))}), pass `right_args` if the "
            "right function takes other arguments, or pass `dtype=None` if "
            "it closes over arrays of another dtype."
        ) from error
    tree, paths = shapes[-1]
    return Traced(jaxpr, inputs, labels, tree, paths)


def _is_module(function: Any) -> bool:
    """Whether a callable is a pytree with leaves, such as a module."""
    return not jax.tree_util.all_leaves([function])


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray | np.generic)


def _cast(x: Any, dtype: str | None) -> Any:
    x = jnp.asarray(x)
    if dtype is None or not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return x.astype(dtype)


def _label(path: Any) -> str:
    root, *rest = path
    where = jax.tree_util.keystr(tuple(rest))
    return f"module{where}" if root.idx == 0 else f"args{where}"


def _describe(x: Any) -> str:
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
