"""Running the demonstrations, and matching them with the rows."""

import contextlib
import inspect
from collections.abc import Callable, Sequence
from types import ModuleType

import jax

from common.differences.row import REPOSITORIES, Difference, Measurement
from common.registry import load_demonstrations


def demonstrations(module: ModuleType) -> dict[str, Callable[[], float]]:
    """Returns the demonstrations that a module defines, by name."""
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
    }


def find_demonstration(row: Difference) -> Callable[[], float]:
    """Returns the function that measures a row.

    Raises:
        ValueError: if there is none.
        BackendNotInstalledError: if the row's library is missing.
    """
    modules = {module.__name__: module for module in _modules(row.backend)}
    if row.module not in modules:
        raise ValueError(
            f"family of {row.name!r}: got {row.family!r}, expected a module "
            f"of impl_{row.backend}.differences. Write it, or correct the row."
        )
    found = demonstrations(modules[row.module])
    if row.function not in found:
        raise ValueError(
            f"demonstration of {row.name!r}: got no function "
            f"`{row.function}` in {row.module}, expected one. Write it, or "
            "correct the name of the row."
        )
    return found[row.function]


def measure(row: Difference) -> Measurement:
    """Runs the demonstration of a row, under JAX's default settings.

    Raises:
        ValueError: if the row has no demonstration.
        BackendNotInstalledError: if its library is missing.
    """
    demonstration = find_demonstration(row)
    with contextlib.ExitStack() as defaults:
        # The stock layers are shown as most people run them. A float64 row
        # switches x64 on itself.
        defaults.enter_context(jax.enable_x64(False))
        defaults.enter_context(jax.numpy_rank_promotion("allow"))
        defaults.enter_context(jax.numpy_dtype_promotion("standard"))
        return Measurement(row, demonstration())


def require_complete(rows: Sequence[Difference]) -> None:
    """Checks that rows and demonstrations match, one for one.

    Raises:
        ValueError: naming a row without a demonstration, a demonstration
            without a row, or a name that two rows have.
    """
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"rows named {name!r}: got {names.count(name)}, expected 1. "
                "Rename all but one."
            )
    for row in rows:
        find_demonstration(row)
    known = {(row.module, row.function) for row in rows}
    for backend in REPOSITORIES:
        for module in _modules(backend):
            for name in demonstrations(module):
                if (module.__name__, name) not in known:
                    raise ValueError(
                        f"row of {module.__name__}.{name}: got none in "
                        "common.differences.DIFFERENCES, expected one. Add "
                        "it, or delete the function."
                    )


def _modules(backend: str) -> list[ModuleType]:
    """Imports every module of demonstrations of a backend."""
    return load_demonstrations(backend)
