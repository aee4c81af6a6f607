"""Names the operations of a model after the modules that compute them.

The modules of a copy of the model get subclasses whose `__call__` opens a
named scope, which jit, vmap, grad, scan and remat preserve.
"""

import functools
from typing import Any

import jax
from flax import nnx


def with_paths(tree: Any, path: str = "") -> Any:
    """Returns a copy of a tree whose NNX modules name their operations.

    Args:
        tree: a module, or a container of modules.
        path: the path of the tree itself.
    """
    if isinstance(tree, nnx.Module):
        copy = nnx.clone(tree, variables=False)
        for keys, module in nnx.iter_modules(copy):
            module_path = path + jax.tree_util.keystr(_keys(keys))
            module_path = module_path.removeprefix(".")
            if module_path and callable(module):
                cls = _scoped(type(module), module_path)
                object.__setattr__(module, "__class__", cls)
        return copy
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


def _keys(path: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        jax.tree_util.SequenceKey(entry)
        if isinstance(entry, int)
        else jax.tree_util.GetAttrKey(entry)
        for entry in path
    )


@functools.cache
def _scoped(cls: type, path: str) -> type:
    """Returns a subclass that is called in the named scope of a path."""

    def __call__(self, *args, **kwargs):
        with jax.named_scope(f"@{path}"):
            return cls.__call__(self, *args, **kwargs)  # pyright: ignore

    body = {"__call__": __call__, "__module__": cls.__module__}
    return type(cls)(cls.__name__, (cls,), body)
