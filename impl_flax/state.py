"""Canonical names and layouts of a model's arrays, one rule a layer type.

Parameters and statistics are all `nnx.Variable`s of the module, told apart by
their type, so one walk over the graph finds both.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from common import optimizers
from common.state import Layout
from impl_flax import layers

# A wrapper's own name stands for the layer inside it.
TRANSPARENT = {(layers.SpectralNorm, "layer")}

# Canonical leaf name of each Variable of each layer.
NAMES: dict[type, dict[str, str]] = {
    nnx.Linear: {"kernel": "weight"},
    nnx.Conv: {"kernel": "weight"},
    nnx.BatchNorm: {
        "scale": "weight",
        "mean": "running_mean",
        "var": "running_var",
    },
    layers.BatchNorm: {
        "scale": "weight",
        "mean": "running_mean",
        "var": "running_var",
        "count": "num_batches_tracked",
    },
    layers.SpectralNorm: {"u": "weight_u", "v": "weight_v"},
}


def _reverse(x: Any) -> Any:
    # Linear: (in, out) <-> (out, in).
    # Conv: (*kernel, in, out) <-> (out, in, *kernel), the kernel unreversed.
    *kernel, i, o = range(x.ndim)
    return jnp.transpose(x, (o, i, *kernel))


def _restore(x: Any) -> Any:
    o, i, *kernel = range(x.ndim)
    return jnp.transpose(x, (*kernel, i, o))


LAYOUTS = {
    (nnx.Linear, "kernel"): {"to_native": _restore, "to_canonical": _reverse},
    (nnx.Conv, "kernel"): {"to_native": _restore, "to_canonical": _reverse},
}


def layouts(
    module: nnx.Module, wrt: type[nnx.Variable]
) -> dict[tuple[Any, ...], Layout]:
    """Returns the `Layout` of each Variable of a type, by its path."""
    return {
        path: _layout(module, path)
        for path, _ in nnx.to_flat_state(nnx.state(module, wrt))
    }


def _layout(module: nnx.Module, path: tuple[Any, ...]) -> Layout:
    owner: Any = module
    words: list[str] = []
    for word in path[:-1]:
        if not _has_rule(TRANSPARENT, owner, word):
            words.append(str(word))
        owner = getattr(owner, word) if isinstance(word, str) else owner[word]
    leaf = path[-1]
    for kind, names in NAMES.items():
        if isinstance(owner, kind):
            words.append(names.get(str(leaf), str(leaf)))
            break
    else:
        words.append(str(leaf))
    for (kind, name), transforms in LAYOUTS.items():
        if isinstance(owner, kind) and leaf == name:
            return Layout(".".join(words), **transforms)
    return Layout(".".join(words))


def _has_rule(rules: Any, owner: Any, word: Any) -> bool:
    return any(isinstance(owner, k) and word == name for k, name in rules)


def names(layouts: dict[tuple[Any, ...], Layout]) -> list[str]:
    """Returns the canonical names in a dict of layouts."""
    return [layout.name for layout in layouts.values()]


def read(
    module: nnx.Module, layouts: dict[tuple[Any, ...], Layout]
) -> dict[str, jax.Array]:
    """Returns a module's canonical arrays."""
    variables = dict(nnx.to_flat_state(nnx.state(module)))
    return {
        layout.name: layout.to_canonical(variables[path][...])
        for path, layout in layouts.items()
    }


def write(
    module: nnx.Module,
    layouts: dict[tuple[Any, ...], Layout],
    arrays: Any,
) -> None:
    """Writes canonical arrays into a module's Variables, in place."""
    variables = dict(nnx.to_flat_state(nnx.state(module)))
    for path, layout in layouts.items():
        # `variable[...] = x` would cast to the dtype the Variable had.
        variables[path].set_value(
            jnp.asarray(layout.to_native(arrays[layout.name]))
        )


class NamedParameters:
    """Turns parameter trees of one module into flat dicts, and back."""

    def __init__(self, module: nnx.Module):
        self._names = {
            path: layout.name
            for path, layout in layouts(module, nnx.Param).items()
        }
        self.layouts: dict[str, Layout] = {
            layout.name: layout
            for layout in layouts(module, nnx.Param).values()
        }

    def to_names(self, tree: Any) -> Any:
        """Replaces each `nnx.State` in a tree by a dict."""

        def replace(x):
            if not isinstance(x, nnx.State):
                return x
            leaves = dict(nnx.to_flat_state(x))
            return {self._names[path]: leaf for path, leaf in leaves.items()}

        return jax.tree.map(
            replace, tree, is_leaf=lambda x: isinstance(x, nnx.State)
        )

    def to_native(self, tree: Any) -> Any:
        """Inverts `to_names`."""

        def replace(x):
            if not self._is_named(x):
                return x
            return nnx.from_flat_state(
                {path: x[name] for path, name in self._names.items()}
            )

        return jax.tree.map(replace, tree, is_leaf=self._is_named)

    def optimizer_to_canonical(self, opt_state: optax.OptState) -> Any:
        """Flattens an `nnx.Optimizer`'s state into `State.opt`."""
        named = optimizers.map_named(
            lambda name, x: self.layouts[name].to_canonical(x),
            self.to_names(nnx.as_pure(opt_state)),
            self.layouts,
        )
        return optimizers.flatten(named)

    def optimizer_to_native(
        self, opt_state: optax.OptState, arrays: Any
    ) -> Any:
        """Returns the pure state of an `nnx.Optimizer` for `State.opt`."""
        pure = nnx.as_pure(opt_state)
        named = optimizers.map_named(
            lambda name, x: self.layouts[name].to_native(x),
            optimizers.unflatten(self.to_names(pure), arrays),
            self.layouts,
        )
        return jax.tree.map(
            lambda old, new: jnp.asarray(new, old.dtype),
            pure,
            self.to_native(named),
        )

    def _is_named(self, x: Any) -> bool:
        return isinstance(x, dict) and x.keys() == self.layouts.keys()
