"""What can be built: the backends by name, and `build` itself."""

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optax
from jax.typing import DTypeLike

from common import checks, losses
from common.errors import (
    BackendNotInstalledError,
    HyperParameterError,
    choose,
)
from common.layers import Layer
from common.models import SPECS
from common.protocol import Backend, Counterpart, Loss, Spec
from common.trainer import Trainer

# Module, the library that must be there, and what to install.
BACKENDS = {
    "reference": ("common.reference", "jax", "jax"),
    "equinox": ("impl_equinox.backend", "equinox", "equinox>=0.13.8,<0.14"),
    "flax": ("impl_flax.backend", "flax", "flax>=0.12.8,<0.12.9"),
}
ALIASES = {"nnx": "flax"}
DTYPES = ("float32", "float64")


def backends() -> tuple[str, ...]:
    """Returns the names that `build(backend=...)` takes."""
    return tuple(BACKENDS)


def specs() -> tuple[str, ...]:
    """Returns the names that `build(spec=...)` takes."""
    return tuple(SPECS)


def find_backend(name: str | None) -> Callable[..., Backend]:
    """Imports a backend's class.

    Raises:
        ValueError: if there is no backend of that name.
        BackendNotInstalledError: if its library is missing.
    """
    if isinstance(name, str):
        name = ALIASES.get(name, name)
    if not isinstance(name, str) or name not in BACKENDS:
        raise choose("backend", name, BACKENDS)
    module, library, requirement = BACKENDS[name]
    if importlib.util.find_spec(library) is None:
        raise BackendNotInstalledError(
            f"backend {name!r}: got no module named {library!r}, expected "
            f'{requirement}. Run `pip install "{requirement}"`.'
        )
    return importlib.import_module(module).Backend


def find_counterpart(backend: str, layer: Layer) -> Counterpart:
    """Returns a backend's counterpart of a row of the layer table.

    Raises:
        ValueError: if there is no backend of that name.
        BackendNotInstalledError: if its library is missing.
    """
    module = find_backend(backend).__module__.replace(".backend", ".table")
    return importlib.import_module(module).Counterpart(layer)


def find_spec(spec: str | Spec, hyper_parameters: dict[str, Any]) -> Spec:
    """Makes a spec from a name, or changes an instance.

    Raises:
        ValueError: if there is no spec of that name.
        HyperParameterError: if the spec has no hyper-parameter of a given
            name.
    """
    if isinstance(spec, Spec):
        kind = type(spec)
    elif isinstance(spec, str) and spec in SPECS:
        kind = SPECS[spec]
    else:
        raise choose("spec", spec, SPECS)
    fields = [field.name for field in dataclasses.fields(kind)]
    for name in hyper_parameters:
        if name not in fields:
            raise HyperParameterError(
                f"{kind.name} hyper-parameter: got {name!r}, expected one of "
                f"{', '.join(map(repr, fields))}. Remove or rename it."
            )
    values = {k: _plain(value) for k, value in hyper_parameters.items()}
    if isinstance(spec, Spec):
        return dataclasses.replace(spec, **values)
    return kind(**values)


def _plain(value: Any) -> Any:
    # A spec is hashable, JSON knows no tuples, and no numbers of NumPy's.
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def find_dtype(dtype: DTypeLike) -> str:
    """Returns the name of a dtype that models come in.

    Raises:
        ValueError: if it is another one, or none.
    """
    name: Any = dtype
    if not isinstance(dtype, str | None):
        try:
            name = np.dtype(dtype).name
        except TypeError:
            pass
    if not isinstance(name, str) or name not in DTYPES:
        raise choose("dtype", name, DTYPES)
    return name


def build(
    spec: str | Spec = "stateful_mlp",
    *,
    backend: str | None = None,
    optimizer: optax.GradientTransformation | None = None,
    loss: str | Loss | None = None,
    metrics: str | Sequence[str] | Mapping[str, str | Loss] | None = None,
    seed: Any = 0,
    dtype: DTypeLike = "float32",
    **hyper_parameters: Any,
) -> Trainer:
    """Builds a model in one library, ready to train.

    The initial values come from the spec and the seed, so they are the same
    in every backend.

    Args:
        spec: a name from `specs()`, or a spec instance.
        backend: a name from `backends()`; `"nnx"` means `"flax"`. There is
            no default.
        optimizer: any optax transformation whose state holds scalars and
            parameter-shaped arrays, and whose update does not depend on the
            order of an array's axes. Masks and labels are functions of a
            flat dict by canonical name. The spec's own if `None`.
        loss: `"mse"`, `"cross_entropy"` or a callable
            `(predictions, targets) -> scalar`. The spec's own if `None`.
        metrics: a name, names, or a dict of names and callables like a
            loss. The spec's own if `None`.
        seed: an int of 32 bits; decides the initial values, dropout and the
            data order.
        dtype: `"float32"` or `"float64"`, of all floating arrays.
        **hyper_parameters: fields of the spec to set.

    Raises:
        ValueError: for an unknown name, an optimizer that does not cross, or
            `"float64"` without x64.
        HyperParameterError: for one that the spec does not have.
        BackendNotInstalledError: if the backend's library is missing.
        ModelNotFoundError: if the backend has no model class for the spec.
    """
    make_backend = find_backend(backend)
    spec = find_spec(spec, hyper_parameters)
    dtype = find_dtype(dtype)
    if dtype == "float64" and not checks.flag("jax_enable_x64"):
        raise ValueError(
            "dtype: got 'float64' while x64 is off, expected x64 to be on. "
            'Call `jax.config.update("jax_enable_x64", True)` first.'
        )
    if not checks.flag("jax_threefry_partitionable"):
        raise ValueError(
            "jax_threefry_partitionable: got False, expected True: the "
            "libraries' random numbers differ otherwise. Call "
            '`jax.config.update("jax_threefry_partitionable", True)`.'
        )
    return Trainer(
        spec,
        make_backend,
        optimizer=optimizer,
        loss=losses.find_loss(spec.loss if loss is None else loss),
        metrics=losses.find_metrics(
            spec.metrics if metrics is None else metrics
        ),
        seed=checks.check_seed(seed),
        dtype=dtype,
    )
