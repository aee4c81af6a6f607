"""Names the operations of a model after the modules that compute them.

The modules of a copy of the model get subclasses whose `__call__` opens a
named scope, which jit, vmap, grad, scan and remat preserve.
"""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax


def with_paths(tree: Any, path: str = "") -> Any:
    """Returns a copy of a tree whose Equinox modules name their operations.

    Args:
        tree: a module, or a container of modules.
        path: the path of the tree itself.
    """
    if isinstance(tree, eqx.Module):
        cls = type(tree)
        is_scoped = callable(tree) and path
        new = object.__new__(_scoped(cls, path) if is_scoped else cls)
        for field in dataclasses.fields(tree):
            if field.name in vars(tree):
                value = vars(tree)[field.name]
                name = f"{path}.{field.name}" if path else field.name
                object.__setattr__(new, field.name, with_paths(value, name))
        return new
    if type(tree) in (list, tuple):
        return type(tree)(
            with_paths(item, f"{path}[{i}]") for i, item in enumerate(tree)
        )
    if type(tree) is dict:
        return {
            key: with_paths(value, f"{path}[{key!r}]")
            for key, value in tree.items()
        }
    return tree


@functools.cache
def _scoped(cls: type, path: str) -> type:
    """Returns a subclass that is called in the named scope of a path."""

    def __call__(self, *args, **kwargs):
        with jax.named_scope(f"@{path}"):
            return cls.__call__(self, *args, **kwargs)  # pyright: ignore

    body = {"__call__": __call__, "__module__": cls.__module__}
    return type(cls)(cls.__name__, (cls,), body)
