"""Puts each module's path on what it computes, on a copy of the model.

The copy's modules are of subclasses whose `__call__` opens a named scope, so
that the path survives jit, vmap, grad, scan and remat.
"""

import functools
from typing import Any

import jax
from flax import nnx


def with_paths(tree: Any, path: str = "") -> Any:
    """Returns a tree whose NNX modules name their path in the trace.

    Args:
        tree: modules, in any containers.
        path: of the tree itself.
    """
    if isinstance(tree, nnx.Module):
        copy = nnx.clone(tree, variables=False)
        for keys, module in nnx.iter_modules(copy):
            where = path + jax.tree_util.keystr(_keys(keys))
            where = where.removeprefix(".")
            if where and callable(module):
                cls = _scoped(type(module), where)
                object.__setattr__(module, "__class__", cls)
        return copy
    if type(tree) in (list, tuple):
        return type(tree)(
            with_paths(it, f"{path}[{i}]") for i, it in enumerate(tree)
        )
    if type(tree) is dict:
        return {
            key: with_paths(it, f"{path}[{key!r}]") for key, it in tree.items()
        }
    return tree


def _keys(path: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        jax.tree_util.SequenceKey(it)
        if isinstance(it, int)
        else jax.tree_util.GetAttrKey(it)
        for it in path
    )


@functools.cache
def _scoped(cls: type, path: str) -> type:
    """A subclass whose calls are in the scope of a path."""

    def __call__(self, *args, **kwargs):
        with jax.named_scope(f"@{path}"):
            return cls.__call__(self, *args, **kwargs)  # pyright: ignore

    body = {"__call__": __call__, "__module__": cls.__module__}
    return type(cls)(cls.__name__, (cls,), body)
