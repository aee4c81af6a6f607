"""What can be built: the backends by name, and `build` itself."""

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import optax

from common import checks, losses, optimizers
from common.errors import BackendNotInstalledError, choose
from common.models import SPECS
from common.protocol import Backend, Loss, Spec
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


def find_backend(name: str) -> Callable[..., Backend]:
    """Imports a backend's class.

    Raises:
        ValueError: if there is no backend of that name.
        BackendNotInstalledError: if its library is missing.
    """
    name = ALIASES.get(name, name)
    if name not in BACKENDS:
        raise choose("backend", name, BACKENDS)
    module, library, requirement = BACKENDS[name]
    if importlib.util.find_spec(library) is None:
        raise BackendNotInstalledError(
            f"backend {name!r}: got no module named {library!r}, expected "
            f'{requirement}. Run `pip install "{requirement}"`.'
        )
    return importlib.import_module(module).Backend


def find_spec(spec: str | Spec, hyper_parameters: dict[str, Any]) -> Spec:
    """Makes a spec from a name, or changes an instance.

    Raises:
        ValueError: if there is no spec of that name.
        TypeError: if the spec has no hyper-parameter of a given name.
    """
    if not isinstance(spec, Spec) and spec not in SPECS:
        raise choose("spec", spec, SPECS)
    kind = type(spec) if isinstance(spec, Spec) else SPECS[spec]
    fields = [field.name for field in dataclasses.fields(kind)]
    for name in hyper_parameters:
        if name not in fields:
            raise TypeError(
                f"{kind.name} hyper-parameter: got {name!r}, expected one of "
                f"{', '.join(map(repr, fields))}. Remove or rename it."
            )
    # A spec is hashable, and JSON knows no tuples.
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in hyper_parameters.items()
    }
    if isinstance(spec, Spec):
        return dataclasses.replace(spec, **values)
    return kind(**values)


def build(
    spec: str | Spec = "stateful_mlp",
    *,
    backend: str,
    optimizer: optax.GradientTransformation | None = None,
    loss: str | Loss | None = None,
    metrics: tuple[str, ...] | dict[str, Loss] | None = None,
    seed: int = 0,
    dtype: str = "float32",
    **hyper_parameters: Any,
) -> Trainer:
    """Builds a model in one library, ready to train.

    The initial values come from the spec and the seed, so they are the same
    in every backend.

    Args:
        spec: a name from `specs()`, or a spec instance.
        backend: a name from `backends()`; `"nnx"` means `"flax"`.
        optimizer: any optax transformation whose state holds scalars and
            parameter-shaped arrays. Masks and labels are functions of a flat
            dict by canonical name. The spec's own if `None`.
        loss: `"mse"`, `"cross_entropy"` or a callable
            `(predictions, targets) -> scalar`. The spec's own if `None`.
        metrics: names, or callables like a loss by name. The spec's own if
            `None`.
        seed: decides the initial values, dropout and the data order.
        dtype: `"float32"` or `"float64"`, of all floating arrays.
        **hyper_parameters: fields of the spec to set.

    Raises:
        ValueError: for an unknown name, an optimizer that does not cross, or
            `"float64"` without x64.
        TypeError: for a hyper-parameter that the spec does not have.
        BackendNotInstalledError: if the backend's library is missing.
    """
    make_backend = find_backend(backend)
    spec = find_spec(spec, hyper_parameters)
    if dtype not in DTYPES:
        raise choose("dtype", dtype, DTYPES)
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
    if optimizer is None:
        optimizer = spec.optimizer()
    optimizers.require_crossing(
        optimizer,
        {
            name: jax.ShapeDtypeStruct(variable.shape, dtype)
            for name, variable in spec.variables().items()
            if variable.trainable
        },
    )
    return Trainer(
        spec,
        make_backend,
        optimizer=optimizer,
        loss=losses.find_loss(spec.loss if loss is None else loss),
        metrics=losses.find_metrics(
            spec.metrics if metrics is None else metrics
        ),
        seed=seed,
        dtype=dtype,
    )
