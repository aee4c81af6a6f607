"""Carries the state of an optimizer along with the arrays it belongs to."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.layouts import Layout, ModelLayouts, Role
from common.porting.arrays import on_host
from common.porting.endpoints import Given, Native
from common.porting.placement import place
from common.registry import find_porting

OPTIMIZER = "optimizer"


class _ByName(dict):
    """A parameter tree, by the dotted name of the parameter."""


def carry(
    given: Given,
    target: Native,
    layouts: Mapping[str, Layout],
    copies: Mapping[str, Layout],
) -> tuple[Any, Any] | None:
    """Returns the optimizer's state for the target, and its step.

    Arrays of a target parameter without a source stay as they are.

    Args:
        given: the source.
        target: the target.
        layouts: of target arrays over source arrays.
        copies: of source arrays that must equal others, over these.

    Returns:
        `None` if the source or the target has no optimizer.

    Raises:
        ValueError: if the two optimizers are not the same, if the state of
            a parameter that is transformed has another shape than it, or if
            that of a copy has other values.
    """
    if target.optimizer is None:
        return None
    into, _ = find_porting(target.library).read_optimizer(target.optimizer)
    if given.state is not None:
        return _from_state(given.state, target, into), given.state.step
    if given.native is None or given.native.optimizer is None:
        return None
    source = given.native
    tree, step = find_porting(source.library).read_optimizer(source.optimizer)
    ours = _named(source.layouts, tree)
    theirs = _named(target.layouts, into)
    shapes = (
        jax.tree.structure(_hollow(ours)),
        jax.tree.structure(_hollow(theirs)),
    )
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"optimizer: got the state {shapes[0]}, expected {shapes[1]}. "
            "Pass a target whose optimizer is made by the same optax "
            "function."
        )

    def move(x, old):
        if not isinstance(old, _ByName):
            return _like(x, old)
        _require_equal(copies, x)
        made = _ByName(old)
        for name, layout in layouts.items():
            sources = [source.name for source in layout.sources]
            if name in old and all(n in x for n in sources):
                made[name] = _apply(name, layout, x, old[name])
        return made

    moved = jax.tree.map(move, ours, theirs, is_leaf=_is_by_name)
    if step is None:
        step = _count(moved)
    return _unnamed(target.layouts, moved), step


def _is_by_name(x: Any) -> bool:
    return isinstance(x, _ByName)


def _hollow(tree: Any) -> Any:
    """Replaces parameter trees by single leaves."""

    def hollow(x):
        return 0 if _is_by_name(x) else x

    return jax.tree.map(hollow, tree, is_leaf=_is_by_name)


def _dotted(layouts: ModelLayouts) -> dict[str, str]:
    """Returns the dotted name of each parameter, by its path."""
    return {
        a.path: a.dotted for a in layouts.arrays if a.role is Role.PARAMETER
    }


def _named(layouts: ModelLayouts, tree: Any) -> Any:
    """Replaces each parameter tree in a tree by a dict by dotted name."""
    dotted = _dotted(layouts)

    def replace(x):
        if not layouts.is_parameters(x):
            return x
        leaves = layouts.flatten_parameters(x)
        return _ByName(
            {dotted[p]: leaf for p, leaf in leaves.items() if p in dotted}
        )

    return jax.tree.map(replace, tree, is_leaf=layouts.is_parameters)


def _unnamed(layouts: ModelLayouts, tree: Any) -> Any:
    """Inverts `_named`."""
    paths = {name: path for path, name in _dotted(layouts).items()}

    def replace(x):
        if not _is_by_name(x):
            return x
        return layouts.unflatten_parameters(
            {paths[name]: leaf for name, leaf in x.items()}
        )

    return jax.tree.map(replace, tree, is_leaf=_is_by_name)


def _apply(name: str, layout: Layout, trees: Any, old: Any) -> Any:
    """Applies a layout to what an optimizer keeps for a parameter."""
    sources = layout.sources
    leaves = [jax.tree.leaves(trees[source.name]) for source in sources]
    before, treedef = jax.tree.flatten(old)
    if not all(len(found) == len(before) for found in leaves):
        raise ValueError(
            f"optimizer state of {name!r}: got another structure, expected "
            f"{treedef}. Pass a target whose optimizer has the same mask."
        )
    made = []
    for *found, like in zip(*leaves, before, strict=True):
        if all(
            x.shape == source.shape
            for x, source in zip(found, sources, strict=True)
        ):
            arrays = dict(zip([s.name for s in sources], found, strict=True))
            made.append(_like(layout.apply(on_host(arrays)), like))
            continue
        plain = layout.join is None and not layout.steps
        if len(found) != 1 or not (plain or found[0].size == 1):
            raise ValueError(
                f"optimizer state of {name!r}: got the shape "
                f"{found[0].shape}, expected that of the parameter, "
                f"{sources[0].shape}, since the parameter is rearranged. "
                "Port the model alone, and initialize the optimizer anew."
            )
        made.append(_like(found[0], like))
    return treedef.unflatten(made)


def _require_equal(copies: Mapping[str, Layout], trees: Any) -> None:
    """Checks that what is kept for a copy is what is kept for its original.

    Where two arrays become one, the optimizer keeps one state for both.
    """
    for name, layout in copies.items():
        names = [source.name for source in layout.sources]
        if name not in trees or not all(n in trees for n in names):
            continue
        made = jax.tree.leaves(_apply(name, layout, trees, trees[name]))
        own = jax.tree.leaves(trees[name])
        if not all(map(np.array_equal, made, own)):
            raise ValueError(
                f"optimizer state of {name!r}: got other values than for "
                f"{names}, expected the same, because the target trains both "
                "as one array. Port the model alone, and initialize the "
                f"optimizer anew, or add {name!r} to `ignore` to lose its "
                "state."
            )


def _like(x: Any, old: Any) -> Any:
    """Returns an array of the optimizer in the dtype and place of the old."""
    if not hasattr(old, "dtype"):
        return x
    if tuple(jnp.shape(x)) != tuple(old.shape):
        raise ValueError(
            f"optimizer state: got the shape {jnp.shape(x)}, expected "
            f"{tuple(old.shape)}. Pass a target whose optimizer is made by "
            "the same optax function."
        )
    if jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
        return x
    return place(jnp.asarray(x, old.dtype), old)


def _count(tree: Any) -> Any:
    """Returns the number of steps that an optimizer has counted."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_by_name)
    counts = [
        x
        for path, x in leaves[0]
        if path and getattr(path[-1], "name", None) == "count"
    ]
    return functools.reduce(jnp.maximum, counts) if counts else None


def _from_state(state: Any, target: Native, into: Any) -> Any:
    """Reads the optimizer's state from a State."""
    like = target.layouts.to_canonical(into)
    leaves, _ = jax.tree_util.tree_flatten_with_path(like)
    names = {_key(path) for path, _ in leaves}
    if names != state.opt.keys():
        raise ValueError(
            "optimizer: got a State without "
            f"{sorted(names - state.opt.keys())} and with "
            f"{sorted(state.opt.keys() - names)}, expected {sorted(names)}. "
            "Pass a target whose optimizer is made by the same optax function."
        )

    def read(path, old):
        return jnp.asarray(state.opt[_key(path)], old.dtype)

    found = jax.tree_util.tree_map_with_path(read, like)
    made = target.layouts.from_canonical(found)
    return jax.tree.map(_like, made, into)


def _key(path: tuple[Any, ...]) -> str:
    words = (jax.tree_util.keystr((x,), simple=True) for x in path)
    return ".".join([OPTIMIZER, *words])
