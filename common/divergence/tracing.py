"""Traces a function or a module to a jaxpr with labeled inputs."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common.divergence.closures import with_named_modules
from common.divergence.sources import error_frames
from common.divergence.widening import widen
from common.environment import flag

# The argument that an error of JAX is about.
ARGUMENT = re.compile(r"argument inputs\[(\d+)\]")


@dataclasses.dataclass
class Traced:
    """A traced function.

    Attributes:
        jaxpr: the closed jaxpr.
        inputs: the arrays to evaluate it with.
        labels: the path of each input in the arguments or in the module.
        tree: the structure of the outputs.
        paths: the path of each output.
        is_wide: whether it was traced with float64 arguments.
    """

    jaxpr: Any
    inputs: list[Any]
    labels: list[str]
    tree: Any
    paths: list[str]
    is_wide: bool


class _Attempt(NamedTuple):
    """A way to trace a function.

    Attributes:
        dtype: the dtype to cast floats to, or `None` to keep theirs.
        x64: whether JAX's 64-bit types are enabled.
        is_named: whether modules record their paths.
    """

    dtype: str | None
    x64: bool
    is_named: bool = True


def trace(
    side: str,
    function: Any,
    args: Sequence[Any],
    dtype: str | None,
    name_modules: Callable[[Any], Any],
) -> Traced:
    """Traces a function.

    For `"float64"`, the inputs are float64, but the jaxpr may be that of the
    program in its own dtypes. Code that closes over float32 arrays cannot be
    traced with float64 arguments, for example.

    Args:
        side: names the function in error messages, `"left"` or `"right"`.
        function: the function, or a module with a `__call__`.
        args: the arguments to call it with.
        dtype: the dtype to evaluate it in, or `None` for its own.
        name_modules: replaces the modules in a pytree by copies that record
            their path in JAX's name stack.

    Raises:
        TypeError: if the function cannot be traced.
    """
    attempts = _attempts(dtype)
    errors: list[TypeError] = []
    for attempt in attempts:
        with jax.enable_x64(attempt.x64):
            try:
                return _trace(
                    side,
                    function,
                    args,
                    attempt,
                    name_modules if attempt.is_named else _unchanged,
                    wide=dtype == "float64",
                )
            except TypeError as error:
                if error.__cause__ is None:
                    raise
                errors.append(error)
    raise errors[0]


def _attempts(dtype: str | None) -> list[_Attempt]:
    """Returns the ways to trace a function, the best first.

    Named modules have other classes, which fails in code that compares the
    structure of a module with that of another.
    """
    x64 = flag("jax_enable_x64")
    if dtype != "float64":
        ways = [_Attempt(dtype, x64)]
    elif x64:
        ways = [_Attempt("float64", True), _Attempt(None, True)]
    else:
        ways = [_Attempt(None, False), _Attempt("float64", True)]
    return ways + [way._replace(is_named=False) for way in ways]


def _trace(
    side: str,
    function: Any,
    args: Sequence[Any],
    attempt: _Attempt,
    name_modules: Callable[[Any], Any],
    wide: bool,
) -> Traced:
    module = function if _is_module(function) else None
    leaves, treedef = jax.tree_util.tree_flatten_with_path(
        name_modules((module, tuple(args)))
    )
    arrays = [(path, x) for path, x in leaves if _is_array(x)]
    inputs = [_cast(x, attempt) for _, x in arrays]
    labels = [_label(path) for path, _ in arrays]
    shapes: list[Any] = []
    called = with_named_modules(function, name_modules)

    def flat(*inputs):
        remaining = iter(inputs)
        module, args = jax.tree.unflatten(
            treedef,
            [next(remaining) if _is_array(x) else x for _, x in leaves],
        )
        out = (called if module is None else module)(*args)
        found, tree = jax.tree_util.tree_flatten_with_path(out)
        shapes.append((tree, [jax.tree_util.keystr(p) for p, _ in found]))
        return [x for _, x in found]

    name = getattr(function, "__name__", type(function).__name__)
    try:
        jaxpr = jax.make_jaxpr(flat)(*inputs)
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            _numpy_message(f"{side} function {name!r}", error, labels)
        ) from error
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
    if wide:
        originals = [x for _, x in arrays]
        inputs = list(map(_widened, originals, inputs))
    is_wide = attempt.dtype == "float64"
    return Traced(jaxpr, inputs, labels, tree, paths, is_wide)


def _unchanged(tree: Any) -> Any:
    return tree


def _is_module(function: Any) -> bool:
    """Whether a callable is a pytree with leaves, such as a module."""
    return not jax.tree_util.all_leaves([function])


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray | np.generic)


def _cast(x: Any, attempt: _Attempt) -> Any:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    if attempt.dtype is not None:
        return x.astype(attempt.dtype)
    return x if attempt.x64 or x.dtype != "float64" else x.astype("float32")


def _widened(original: Any, x: Any) -> Any:
    """Returns the input in float64 if it is a float, not rounded before."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    with jax.enable_x64(True):
        return widen(jnp.asarray(original))


def _label(path: Any) -> str:
    root, *rest = path
    where = jax.tree_util.keystr(tuple(rest))
    return f"module{where}" if root.idx == 0 else f"args{where}"


def _describe(x: Any) -> str:
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def _numpy_message(what: str, error: Exception, labels: list[str]) -> str:
    """Says which array a function of NumPy was applied to, and where."""
    found = ARGUMENT.search(str(error))
    array = labels[int(found[1])] if found else "an array that it computes"
    frames = error_frames(error)
    place = f" at {frames[0]}" if frames else ""
    return (
        f"{what}: got NumPy applied to {array}{place}, expected JAX only, "
        "because NumPy cannot be traced. Use `jax.numpy` there, or make the "
        "field static."
    )
