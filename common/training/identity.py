"""Printable forms of optimizers, losses and metrics.

A saved State records how it was trained. The forms are the same in every
process and backend: they contain names of functions and the values that these
close over, but no addresses and no file names.
"""

import functools
import hashlib
import inspect
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from common.layouts.model import is_key

Identity = dict[str, Any]


def identify(trainer: Any) -> Identity:
    """Returns what a file records of a trainer besides its model.

    Args:
        trainer: has an `optimizer`, a `subject`, a `backend` and `settings`.
    """
    params: Any = {
        name: jax.ShapeDtypeStruct(shape, jnp.dtype(trainer.dtype))
        for name, shape in trainer.subject.parameters().items()
    }
    metrics = trainer.backend.metrics.items()
    optimizer = trainer.optimizer
    state: Any = None
    if isinstance(optimizer, Mapping):
        state = {
            part: describe_state(one, _of_part(part, params))
            for part, one in optimizer.items()
        }
    else:
        state = describe_state(optimizer, params)
    return {
        "optimizer": describe(optimizer),
        "optimizer_state": state,
        "loss": describe(trainer.backend.loss),
        "metrics": {name: describe(f) for name, f in metrics},
        **trainer.settings.numerical(),
    }


def _of_part(part: str, params: Mapping[str, Any]) -> dict[str, Any]:
    start = f"{part}."
    return {n: x for n, x in params.items() if n.startswith(start)} or {
        **params
    }


BUILD = (
    "in this trainer. Training continues with the trainer's; build it with "
    "the saved one to continue the same run."
)
FIT = (
    "in this call of `fit`. Training continues with the latter; pass the "
    "saved one to continue the same run."
)


def warn_of_changes(
    saved: Mapping[str, Any], current: Identity, what: str, where: str = BUILD
) -> None:
    """Warns of each part of an identity that is not as it was saved.

    Args:
        saved: the header of a file; parts that it lacks are not compared.
        current: of the trainer that continues.
        what: names the file.
        where: where the current parts are, and what to do.
    """
    for name, expected in current.items():
        if name in saved and saved[name] != expected:
            warnings.warn(
                f"{what}: got {name} {saved[name]}, expected {expected} as "
                f"{where}",
                stacklevel=3,
            )


def describe(x: Any) -> str:
    """Returns a printable form of an optimizer, a function or a value.

    A function is described by its name and the values that it closes over,
    an optimizer by its `update`, an array by its shape and a digest of its
    elements, and any other object by its type and attributes. The code of a
    function is not compared.
    """
    return _describe(x, ())


def describe_state(
    optimizer: optax.GradientTransformation, params: Mapping[str, Any]
) -> str:
    """Returns a printable form of the structure of an optimizer's state.

    Args:
        optimizer: any optax transformation.
        params: by canonical name; only shapes and dtypes are used.
    """
    state = jax.eval_shape(optimizer.init, params)

    def is_named(x):
        return isinstance(x, dict) and not params.keys().isdisjoint(x)

    def replace(x):
        if not is_named(x):
            return _Printed(_shape(x))
        shapes = [leaf.shape for leaf in jax.tree.leaves(x)]
        if shapes == [x.shape for x in jax.tree.leaves(params)]:
            return _Printed("params")
        return _Printed(f"{len(shapes)} arrays by name")

    return repr(jax.tree.map(replace, state, is_leaf=is_named))


class _Printed(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _shape(x: Any) -> str:
    # Under x64 the dtype is another, with the same optimizer.
    return str(list(x.shape)) if x.shape else "scalar"


def _describe(x: Any, ancestors: tuple[int, ...]) -> str:
    if x is None or isinstance(x, bool | int | str):
        return repr(x)
    if isinstance(x, float | np.generic):
        return repr(x.item() if isinstance(x, np.generic) else x)
    if isinstance(x, np.ndarray | jax.Array):
        return _array(x)
    if id(x) in ancestors:
        return "..."
    inner: Callable[[Any], str] = functools.partial(
        _describe, ancestors=(*ancestors, id(x))
    )
    if isinstance(x, optax.GradientTransformation):
        return inner(x.update)
    if isinstance(x, functools.partial):
        arguments = [*map(inner, x.args), *_pairs(x.keywords, inner)]
        return f"{inner(x.func)}({', '.join(arguments)})"
    if isinstance(x, types.MethodType):
        return f"{inner(x.__self__)}.{x.__name__}"
    if isinstance(x, types.FunctionType):
        return _function(x, inner)
    if isinstance(x, dict):
        return "{" + ", ".join(_pairs(x, inner)) + "}"
    if isinstance(x, tuple | list):
        return f"({', '.join(map(inner, x))})"
    if isinstance(x, set | frozenset):
        return "{" + ", ".join(sorted(map(inner, x))) + "}"
    name = getattr(x, "__qualname__", None) or getattr(x, "__name__", None)
    if isinstance(name, str):  # a class, a module or a compiled function
        return name
    values = ", ".join(_pairs(getattr(x, "__dict__", {}), inner))
    return f"{type(x).__qualname__}({values})"


def _function(f: types.FunctionType, inner: Callable[[Any], str]) -> str:
    """Describes a function: `scale(step_size=-0.1)`."""
    f = inspect.unwrap(f)
    values = {}
    cells = f.__closure__ or ()
    for name, cell in zip(f.__code__.co_freevars, cells, strict=True):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    wrapped = values.get("tx")
    if isinstance(wrapped, optax.GradientTransformation):
        return inner(wrapped)  # `optax.with_extra_args_support`
    name = f.__name__
    if (f.__module__ or "").split(".")[0] == "optax":
        name = f.__qualname__.split(".<locals>")[0]
    elif name == "<lambda>":
        count = f.__code__.co_argcount
        name = f"lambda {', '.join(f.__code__.co_varnames[:count])}"
    return f"{name}({', '.join(_pairs(values, inner))})" if values else name


def _pairs(values: Mapping[Any, Any], inner: Callable[[Any], str]) -> list:
    return [f"{name}={inner(x)}" for name, x in values.items()]


def _array(x: Any) -> str:
    is_random_key = isinstance(x, jax.Array) and is_key(x)
    data = np.asarray(jr.key_data(x) if is_random_key else x)
    if data.size == 1 and not is_random_key:
        return repr(data.item())
    return f"array(shape={data.shape}, sha256={digest([data])})"


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Returns the first eight digits of the SHA-256 of arrays."""
    found = hashlib.sha256()
    for x in arrays:
        found.update(np.ascontiguousarray(x).tobytes())
    return found.hexdigest()[:8]
