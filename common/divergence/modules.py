"""Names the module that a value was computed in."""

import importlib
import re
import sys
from typing import Any

# What can say so for its own modules, where its library is in use.
LIBRARIES = {"equinox": "impl_equinox.paths", "flax": "impl_flax.paths"}
# A path that `with_paths` left in a name stack.
PATH = re.compile(r"@([^/()]+)")


def with_paths(trees: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns trees whose modules leave their paths in the name stack."""
    for library, module in LIBRARIES.items():
        if library in sys.modules:
            add = importlib.import_module(module).with_paths
            trees = tuple(
                tuple(add(it) for it in tree)
                if isinstance(tree, tuple)
                else add(tree)
                for tree in trees
            )
    return trees


def path_of(scope: str) -> str:
    """Returns the path of the innermost module in a name stack."""
    found = PATH.findall(scope)
    return found[-1] if found else ""
