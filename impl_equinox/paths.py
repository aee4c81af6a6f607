"""Puts each module's path on what it computes, on a copy of the model.

The copy's modules are of subclasses whose `__call__` opens a named scope, so
that the path survives jit, vmap, grad, scan and remat.
"""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax


def with_paths(tree: Any, path: str = "") -> Any:
    """Returns a tree whose Equinox modules name their path in the trace.

    Args:
        tree: modules, in any containers.
        path: of the tree itself.
    """
    if isinstance(tree, eqx.Module):
        cls = type(tree)
        called = callable(tree) and path
        new = object.__new__(_scoped(cls, path) if called else cls)
        for field in dataclasses.fields(tree):
            if field.name in vars(tree):
                value = vars(tree)[field.name]
                where = f"{path}.{field.name}" if path else field.name
                object.__setattr__(new, field.name, with_paths(value, where))
        return new
    if type(tree) in (list, tuple):
        return type(tree)(
            with_paths(it, f"{path}[{i}]") for i, it in enumerate(tree)
        )
    if type(tree) is dict:
        return {
            key: with_paths(it, f"{path}[{key!r}]") for key, it in tree.items()
        }
    return tree


@functools.cache
def _scoped(cls: type, path: str) -> type:
    """A subclass whose calls are in the scope of a path."""

    def __call__(self, *args, **kwargs):
        with jax.named_scope(f"@{path}"):
            return cls.__call__(self, *args, **kwargs)  # pyright: ignore

    body = {"__call__": __call__, "__module__": cls.__module__}
    return type(cls)(cls.__name__, (cls,), body)
