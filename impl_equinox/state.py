"""Canonical names and layouts of a model's arrays, one rule a layer type.

Parameters sit in the model and state in `eqx.nn.State`, so the two are found
by walking the model's paths: its arrays, and its `StateIndex`es.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from common import optimizers
from common.state import Layout
from impl_equinox import layers

# A wrapper's own name stands for the layer inside it.
TRANSPARENT = {(eqx.nn.SpectralNorm, "layer")}

# Equinox keeps a convolution's bias as (O, 1, 1), ready to broadcast.
PARAMETERS = {
    (eqx.nn.Conv, "bias"): lambda bias: {
        "to_native": lambda x: x.reshape(bias.shape),
        "to_canonical": lambda x: x.reshape(-1),
    },
}

BUFFERS = {
    (eqx.nn.BatchNorm, "ema_first_time_index"): ("first_time",),
    (eqx.nn.BatchNorm, "ema_state_index"): ("running_mean", "running_var"),
    (eqx.nn.BatchNorm, "batch_counter"): ("num_batches_tracked",),
    (eqx.nn.BatchNorm, "batch_state_index"): ("running_mean", "running_var"),
    (layers.StandardBatchNorm, "state_index"): ("running_mean", "running_var"),
    (eqx.nn.SpectralNorm, "uv_index"): ("weight_u", "weight_v"),
}


def parameters(model: eqx.Module) -> Any:
    """Puts a `Layout` in the place of each trainable array of a model."""

    def layout(path, x):
        if not _is_parameter(x):
            return None
        owners, words = _walk(model, path)
        rule = _find(PARAMETERS, owners[-1], path[-1])
        return Layout(".".join(words), **(rule(x) if rule else {}))

    return jax.tree_util.tree_map_with_path(layout, model)


def buffers(model: eqx.Module, state: eqx.nn.State) -> Any:
    """Puts a `Layout` in the place of each array of a model's state."""
    leaves, treedef = jax.tree.flatten(state)
    numbers = jax.tree.unflatten(treedef, range(len(leaves)))
    layouts: list[Layout | None] = [None] * len(leaves)
    for path, index in jax.tree_util.tree_flatten_with_path(
        model, is_leaf=_is_index
    )[0]:
        if not _is_index(index):
            continue
        owners, words = _walk(model, path)
        found = jax.tree.leaves(numbers.get(index))
        names = _find(BUFFERS, owners[-1], path[-1])
        if names is None:
            # An unknown layer: its attribute's name, numbered if it is many.
            attribute = words[-1]
            names = (
                [attribute]
                if len(found) == 1
                else [f"{attribute}.{i}" for i in range(len(found))]
            )
        for number, name in zip(found, names, strict=True):
            layouts[number] = Layout(
                ".".join([*words[:-1], name]), _cast(leaves[number])
            )
    return jax.tree.unflatten(treedef, layouts)


def names(layouts: Any) -> list[str]:
    """Returns the canonical names in a tree of layouts."""
    return [layout.name for layout in jax.tree.leaves(layouts)]


def read(tree: Any, layouts: Any) -> dict[str, jax.Array]:
    """Returns the canonical arrays that a tree of layouts names in a tree."""
    found, treedef = jax.tree.flatten(layouts)
    return {
        layout.name: layout.to_canonical(x)
        for layout, x in zip(found, treedef.flatten_up_to(tree), strict=True)
    }


def write(tree: Any, layouts: Any, arrays: Any) -> Any:
    """Returns the tree with canonical arrays written into it."""
    new = jax.tree.map(
        lambda layout: jnp.asarray(layout.to_native(arrays[layout.name])),
        layouts,
    )
    return eqx.combine(new, tree)


class NamedParameters:
    """Turns parameter trees of one model into flat dicts, and back."""

    def __init__(self, model: eqx.Module):
        layouts, self._treedef = jax.tree.flatten(parameters(model))
        self._type = type(model)
        self.layouts: dict[str, Layout] = {x.name: x for x in layouts}

    def to_names(self, tree: Any) -> Any:
        """Replaces each model-shaped part of a tree by a dict."""

        def replace(x):
            if not isinstance(x, self._type):
                return x
            leaves = self._treedef.flatten_up_to(x)
            return dict(zip(self.layouts, leaves, strict=True))

        return jax.tree.map(
            replace, tree, is_leaf=lambda x: isinstance(x, self._type)
        )

    def to_native(self, tree: Any) -> Any:
        """Inverts `to_names`."""

        def replace(x):
            if not self._is_named(x):
                return x
            return self._treedef.unflatten(x[name] for name in self.layouts)

        return jax.tree.map(replace, tree, is_leaf=self._is_named)

    def optimizer_to_canonical(self, opt_state: optax.OptState) -> Any:
        """Flattens a native optimizer state into `State.opt`."""
        named = optimizers.map_named(
            lambda name, x: self.layouts[name].to_canonical(x),
            self.to_names(opt_state),
            self.layouts,
        )
        return optimizers.flatten(named)

    def optimizer_to_native(
        self, opt_state: optax.OptState, arrays: Any
    ) -> Any:
        """Returns a native optimizer state that holds `State.opt`."""
        named = optimizers.map_named(
            lambda name, x: self.layouts[name].to_native(x),
            optimizers.unflatten(self.to_names(opt_state), arrays),
            self.layouts,
        )
        return jax.tree.map(
            lambda old, new: jnp.asarray(new, old.dtype),
            opt_state,
            self.to_native(named),
        )

    def _is_named(self, x: Any) -> bool:
        return isinstance(x, dict) and x.keys() == self.layouts.keys()


def _cast(like: Any) -> Any:
    """Counters keep the width that the library counts in."""
    if jnp.issubdtype(like.dtype, jnp.floating):
        return lambda x: x
    return lambda x: x.astype(like.dtype)


def _is_parameter(x: Any) -> bool:
    # `eqx.is_inexact_array`, but true of `jax.ShapeDtypeStruct`s too.
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact)


def _is_index(x: Any) -> bool:
    return isinstance(x, eqx.nn.StateIndex)


def _walk(model: Any, path: tuple[Any, ...]) -> tuple[list[Any], list[str]]:
    """Follows a path: the node at each entry, and the canonical words."""
    owners: list[Any] = []
    words: list[str] = []
    node: Any = model
    for entry in path:
        owner: Any = node
        owners.append(owner)
        word = jax.tree_util.keystr((entry,), simple=True)
        if not any(
            isinstance(node, kind) and word == name
            for kind, name in TRANSPARENT
        ):
            words.append(word)
        if isinstance(entry, jax.tree_util.GetAttrKey):
            node = getattr(owner, entry.name)
        elif isinstance(entry, jax.tree_util.SequenceKey):
            node = owner[entry.idx]
        else:
            node = owner[entry.key]
    return owners, words


def _find(rules: dict, owner: Any, entry: Any) -> Any:
    """Looks up the rule for an attribute of a layer, by type."""
    for (kind, name), rule in rules.items():
        if isinstance(owner, kind) and getattr(entry, "name", None) == name:
            return rule
    return None
