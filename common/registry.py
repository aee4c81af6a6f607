"""Finds what each backend provides: the only module that imports an impl.

A backend's package is imported when something of it is first asked for, so
`import common` loads neither library.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from common.errors import (
    BackendNotInstalledError,
    ModelNotFoundError,
    choose,
)
from common.layers import Layer
from common.layers.constructors import Constructor
from common.protocol import Backend, Counterpart, Spec


class Home(NamedTuple):
    """Where a backend lives, and what it needs.

    Attributes:
        package: the package that holds its modules.
        backend: the module of that package that defines `Backend`.
        library: the module that must be installed.
        requirement: what to pass to `pip install`.
    """

    package: str
    backend: str
    library: str
    requirement: str


HOMES = {
    "reference": Home("common.training", "reference", "jax", "jax"),
    "equinox": Home(
        "impl_equinox", "backend", "equinox", "equinox>=0.13.8,<0.14"
    ),
    "flax": Home("impl_flax", "backend", "flax", "flax>=0.12.8,<0.12.9"),
}
ALIASES = {"nnx": "flax"}
LIBRARIES = ("equinox", "flax")
"""The backends that stand on a library of their own."""


def backends() -> tuple[str, ...]:
    """Returns the names that `build(backend=...)` takes."""
    return tuple(HOMES)


def find_backend(name: str | None) -> Callable[..., Backend]:
    """Returns a backend's class.

    Raises:
        ValueError: if there is no backend of that name.
        BackendNotInstalledError: if its library is not installed.
    """
    return _load(name, _home(name).backend).Backend


def find_model(backend: str | None, spec: Spec) -> type | None:
    """Returns a backend's model class for a spec.

    The reference backend runs the spec itself, so it has none.

    Raises:
        ValueError: if there is no backend of that name.
        BackendNotInstalledError: if its library is not installed.
        ModelNotFoundError: naming the file or the class that is missing.
    """
    home = _home(backend)
    if home.package not in IMPLS:
        return None
    name, cls = spec.name, type(spec).__name__
    models = _load(backend, "models")
    if not hasattr(models, "__path__") or name not in _submodules(models):
        raise ModelNotFoundError(
            f"model of {name!r} in {backend}: got no module "
            f"{home.package}.models.{name}, expected one that defines the "
            f"class {cls}. CONTRIBUTING.md describes how to add a model."
        )
    found = getattr(_load(backend, f"models.{name}"), cls, None)
    if found is None:
        raise ModelNotFoundError(
            f"model of {name!r} in {backend}: got no class {cls} in "
            f"{home.package}.models.{name}, expected one. CONTRIBUTING.md "
            "describes how to add a model."
        )
    return found


def find_counterpart(backend: str, layer: Layer) -> Counterpart:
    """Returns a library's layer for a row of the layer table.

    Raises:
        ValueError: if there is no backend of that name, or if its library
            has no constructor for the row.
        BackendNotInstalledError: if the library is not installed.
    """
    constructor = find_constructors(backend)[layer.name]
    return _load(backend, "table").Counterpart(layer, constructor)


def find_constructors(library: str) -> Mapping[str, Constructor]:
    """Returns a library's constructors of the layer table, by row name.

    Raises:
        ValueError: if there is no library of that name.
        BackendNotInstalledError: if the library is not installed.
    """
    if _home(library).package not in IMPLS:
        raise choose("library", library, LIBRARIES)
    for module in _submodules(_load(library, "table")):
        _load(library, f"table.{module}")  # registers its constructors
    return _load(library, "table.column").COLUMN


def find_public_layers(library: str) -> dict[str, Any]:
    """Returns the public layers of an installed library, by name.

    Raises:
        BackendNotInstalledError: if the library is not installed.
    """
    public = _load(library, "table.public")
    return {name: public.find(name) for name in public.public_layers()}


def find_module_paths(library: str) -> Callable[[Any], Any]:
    """Returns the function that makes a library's modules name their paths.

    Raises:
        BackendNotInstalledError: if the library is not installed.
    """
    return _load(library, "paths").with_paths


def find_contenders(library: str) -> dict[str, Callable[..., Any]]:
    """Returns the training steps that the benchmark times for a library.

    Raises:
        BackendNotInstalledError: if the library is not installed.
    """
    return _load(library, "benchmark").CONTENDERS


def load_demonstrations(library: str) -> list[ModuleType]:
    """Imports every module of a library's known differences.

    Raises:
        BackendNotInstalledError: if the library is not installed.
    """
    package = _load(library, "differences")
    return [
        _load(library, f"differences.{name}") for name in _submodules(package)
    ]


IMPLS = tuple(HOMES[library].package for library in LIBRARIES)


def _home(name: str | None) -> Home:
    if isinstance(name, str):
        name = ALIASES.get(name, name)
    if not isinstance(name, str) or name not in HOMES:
        raise choose("backend", name, HOMES)
    return HOMES[name]


def _load(backend: str | None, module: str) -> ModuleType:
    """Imports a module of a backend's package."""
    home = _home(backend)
    if importlib.util.find_spec(home.library) is None:
        name = next(name for name, other in HOMES.items() if other is home)
        raise BackendNotInstalledError(
            f"backend {name!r}: got no module named {home.library!r}, "
            f"expected {home.requirement}. Run "
            f'`pip install "{home.requirement}"`.'
        )
    return importlib.import_module(f"{home.package}.{module}")


def _submodules(package: ModuleType) -> list[str]:
    return [found.name for found in pkgutil.iter_modules(package.__path__)]
