"""Collects the known differences that the two libraries declare."""

import functools
from collections.abc import Iterable, Mapping
from types import ModuleType

from common.differences.row import FAMILIES, Family, KnownDifference
from common.layers import Layer
from common.registry import LIBRARIES, load_demonstrations


@functools.cache
def known_differences(
    library: str | None = None,
) -> tuple[KnownDifference, ...]:
    """Returns the known differences of one library or of both, by family.

    The first call imports the library.

    Args:
        library: `"equinox"` or `"flax"`; both by default.

    Raises:
        ValueError: if a module declares no family or the wrong one, or if two
            known differences have the same name.
        BackendNotInstalledError: if a library is not installed.
    """
    libraries = LIBRARIES if library is None else (library,)
    return collect({name: load_demonstrations(name) for name in libraries})


def collect(
    modules: Mapping[str, Iterable[ModuleType]],
) -> tuple[KnownDifference, ...]:
    """Returns the known differences of some modules, family by family.

    Args:
        modules: the modules of each library.

    Raises:
        ValueError: if a module declares no family or the wrong one, or if two
            known differences have the same name.
    """
    families = [
        _family(library, module)
        for library, found in modules.items()
        for module in found
    ]
    rows: dict[str, KnownDifference] = {}
    for name in FAMILIES:
        for family in families:
            for row in family.rows if family.name == name else ():
                if row.name in rows:
                    raise ValueError(
                        f"known difference {row.name!r}: got "
                        f"{rows[row.name].source} and {row.source}, expected "
                        "a single one of this name. Rename one of them."
                    )
                rows[row.name] = row
    return tuple(rows.values())


def _family(library: str, module: ModuleType) -> Family:
    """Returns the family that a module declares."""
    family = getattr(module, "family", None)
    if not isinstance(family, Family):
        raise ValueError(
            f"{module.__name__}.family: got {family!r}, expected a `Family`. "
            "Create one at the top of the module and decorate each "
            "demonstration with its `known_difference`."
        )
    if family.backend != library:
        raise ValueError(
            f"{module.__name__}.family: got a family of {family.backend!r}, "
            f"expected one of {library!r}. Correct the first argument of "
            "`Family`."
        )
    return family


def excused(layer: Layer, backend: str, dtype: str) -> set[str]:
    """Returns the quantities in which a layer is known to differ.

    Args:
        layer: a row of the layer table.
        backend: `"equinox"` or `"flax"`.
        dtype: the dtype of the parameters and inputs.
    """
    options = layer.options()
    return {
        quantity
        for row in known_differences(backend)
        for excuse in row.excuses
        if excuse.layer == layer.name
        and dtype in excuse.dtypes
        and excuse.options.items() <= options.items()
        for quantity in excuse.quantities
    }
