"""Finds what each backend provides: the only module that imports an impl.

A backend's package is imported on the first request, so `import common` loads
neither library.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax

from common.errors import (
    BackendNotInstalledError,
    ModelNotFoundError,
    choose,
)
from common.layers import Layer
from common.layers.constructors import Constructor
from common.protocol import Backend, Counterpart, Spec


class Home(NamedTuple):
    """The package of a backend, and its requirement.

    Attributes:
        package: the package that holds the backend's modules.
        backend: the module of this package that defines `Backend`.
        library: the library that must be installed.
        requirement: the argument of `pip install` for this library.
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
"""The backends that use a neural network library."""
IMPLS = tuple(HOMES[library].package for library in LIBRARIES)
"""The packages that implement them."""


def backends() -> tuple[str, ...]:
    """Returns the names that `build(backend=...)` takes."""
    return tuple(HOMES)


def find_backend(name: str | None) -> Callable[..., Backend]:
    """Returns a backend's class.

    Raises:
        ValueError: if there is no backend of this name.
        BackendNotInstalledError: if its library is not installed.
    """
    return _load(name, _home(name).backend).Backend


def find_model(backend: str | None, spec: Spec) -> type | None:
    """Returns a backend's model class for a spec.

    The reference backend runs the spec itself, so it has no model classes.

    Args:
        backend: the name of the backend.
        spec: names its classes itself, or has them in this project.

    Raises:
        ValueError: if there is no backend of this name.
        BackendNotInstalledError: if its library is not installed.
        ModelNotFoundError: naming the file or the class that is missing, or
            what the spec returned instead of a class.
    """
    package = _home(backend).package
    if package not in IMPLS:
        return None
    own = spec.model_class(resolve(backend))
    if own is not None:
        if not isinstance(own, type):
            raise ModelNotFoundError(
                f"model {spec.name!r} in {backend}: got {own!r} from "
                "`model_class`, expected a class. Return the class itself."
            )
        _load(backend, "backend")  # requires the library
        return own
    file = f"{package}/models/{spec.name}.py"
    class_name = type(spec).__name__
    if spec.name not in _submodules(_load(backend, "models")):
        raise ModelNotFoundError(
            f"model {spec.name!r} in {backend}: got no file {file}, expected "
            f"one that defines the class {class_name}. Define `model_class` "
            "in the spec, or add that file; CONTRIBUTING.md describes how."
        )
    module = _load(backend, f"models.{spec.name}")
    if not hasattr(module, class_name):
        raise ModelNotFoundError(
            f"model {spec.name!r} in {backend}: got no class {class_name} in "
            f"{file}, expected one. CONTRIBUTING.md describes how to add a "
            "model."
        )
    return getattr(module, class_name)


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


class Library(NamedTuple):
    """What a library provides for a user's own models.

    Attributes:
        layouts: makes the layouts of a native object.
        call: calls a native object on a batch, as the library's examples do.
        with_state: puts what a call returned into the native object.
        copy: copies a native object that could be changed in place.
        model: returns the model of a native object that may be a pair.
        narrowed: `(call, dtype)` returns a call that computes in a narrower
            dtype, as users of the library write mixed precision.
    """

    layouts: Callable[[Any], Any]
    call: Callable[..., tuple[Any, Any]]
    with_state: Callable[[Any, Any], Any]
    copy: Callable[[Any], Any]
    model: Callable[[Any], Any]
    narrowed: Callable[[Callable[..., Any], str], Callable[..., Any]]


def find_library(library: str) -> Library:
    """Returns what a library provides for a user's own models.

    Raises:
        BackendNotInstalledError: if the library is not installed.
    """
    calling = _load(library, "calling")
    return Library(
        _load(library, "canonical").Layouts,
        calling.call,
        calling.with_state,
        calling.copy,
        calling.model_of,
        _load(library, "precision").narrowed,
    )


class Views(NamedTuple):
    """What a library provides for live views.

    Attributes:
        part: describes a native object: `(native, state, trainable)` gives a
            part and its values.
        view: the class of views that show a part as an object of the library.
        make: makes a view of a part and its values.
    """

    part: Callable[..., tuple[Any, Any]]
    view: type
    make: Callable[..., Any]


def find_views(library: str) -> Views:
    """Returns what a library provides for live views.

    Raises:
        BackendNotInstalledError: if the library is not installed.
    """
    views = _load(library, "views")
    return Views(_load(library, "parts").describe, views.View, views.make)


def find_porting(library: str) -> ModuleType:
    """Returns the module with what `port` asks of a library.

    Raises:
        BackendNotInstalledError: if the library is not installed.
    """
    return _load(library, "porting")


def library_of(native: Any) -> str:
    """Returns the library of a model: `"equinox"` or `"flax"`.

    Neither library is imported: a model of one that is not loaded cannot
    exist.

    Args:
        native: an NNX module, an Equinox model, or a pytree that holds one,
            such as a pair of a model and its state.

    Raises:
        TypeError: if it is neither.
    """
    if _is_of(native, "flax.nnx"):
        return "flax"
    nodes = jax.tree.leaves(native, is_leaf=lambda x: _is_of(x, "equinox"))
    if any(_is_of(node, "equinox") for node in nodes):
        return "equinox"
    raise TypeError(
        f"model: got {type(native).__name__}, expected an Equinox model, a "
        "pair of a model and its state, or an NNX module. Pass the object "
        "that the library's constructor returned."
    )


def library_of_class(kind: type) -> str:
    """Returns the library that a class derives from.

    Raises:
        TypeError: if it derives from neither.
    """
    for library, package in (("flax", "flax.nnx"), ("equinox", "equinox")):
        if _derives_from(kind, package):
            return library
    raise TypeError(
        f"layer: got {kind!r}, expected a class that derives from "
        "`eqx.Module` or `nnx.Module`. Pass the class, not an instance."
    )


def _is_of(x: Any, package: str) -> bool:
    return _derives_from(type(x), package)


def _derives_from(kind: Any, package: str) -> bool:
    modules = (base.__module__ for base in getattr(kind, "__mro__", ()))
    return any(f"{name}.".startswith(f"{package}.") for name in modules)


def find_public_layers(library: str) -> dict[str, Any]:
    """Returns the public layers of an installed library, by name.

    Raises:
        BackendNotInstalledError: if the library is not installed.
    """
    public = _load(library, "table.public")
    return {name: public.find(name) for name in public.public_layers()}


def find_layer_modules(library: str) -> dict[str, ModuleType]:
    """Returns the modules of the stock and the custom layers.

    Returns:
        The module by what one usually writes in front of a layer's name.

    Raises:
        BackendNotInstalledError: if the library is not installed.
    """
    public = _load(library, "table.public")
    return {public.PREFIX: public.MODULE, "layers": _load(library, "layers")}


def find_options(library: str) -> ModuleType:
    """Returns the module with notes on the arguments of a library's layers.

    Raises:
        BackendNotInstalledError: if the library is not installed.
    """
    return _load(library, "table.options")


def find_module_paths(library: str) -> Callable[[Any], Any]:
    """Returns the function that makes a library's modules record their paths.

    Raises:
        BackendNotInstalledError: if the library is not installed.
    """
    return _load(library, "paths").with_paths


def find_contenders(library: str) -> dict[str, Callable[..., Any]]:
    """Returns the library's own ways to jit a step, which the benchmark times.

    Raises:
        BackendNotInstalledError: if the library is not installed.
    """
    return _load(library, "benchmark").CONTENDERS


def load_demonstrations(library: str) -> list[ModuleType]:
    """Imports the modules that demonstrate a library's known differences.

    Raises:
        BackendNotInstalledError: if the library is not installed.
    """
    package = _load(library, "differences")
    return [
        _load(library, f"differences.{name}") for name in _submodules(package)
    ]


def resolve(backend: str | None) -> str:
    """Returns the name of a backend that may be given by an alias.

    Raises:
        ValueError: if there is no backend of this name.
    """
    if isinstance(backend, str):
        name = ALIASES.get(backend, backend)
        if name in HOMES:
            return name
    raise choose("backend", backend, HOMES)


def _home(backend: str | None) -> Home:
    return HOMES[resolve(backend)]


def _load(backend: str | None, module: str) -> ModuleType:
    """Imports a module of a backend's package."""
    home = _home(backend)
    if importlib.util.find_spec(home.library) is None:
        raise BackendNotInstalledError(
            f"backend {resolve(backend)!r}: got no package "
            f"{home.library!r}, expected {home.requirement}. Run "
            f'`pip install "{home.requirement}"`.'
        )
    return importlib.import_module(f"{home.package}.{module}")


def _submodules(package: ModuleType) -> list[str]:
    """Returns the names of the modules of a package."""
    return [found.name for found in pkgutil.iter_modules(package.__path__)]
