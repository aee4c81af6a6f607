"""Parameters and the optimizer's state as flat dicts, by canonical name."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from common.state import Layout
from common.training import optimizers
from impl_equinox import canonical


class NamedParameters:
    """Turns parameter trees of one model into flat dicts, and back."""

    def __init__(self, model: eqx.Module):
        self._leaves, self._treedef = jax.tree.flatten(
            canonical.parameters(model)
        )
        self._type = type(model)
        self.layouts: dict[str, Layout] = {
            one.name: one
            for layout in self._leaves
            for one, _ in canonical.parts(layout, None)
        }

    def to_names(self, tree: Any) -> Any:
        """Replaces each model-shaped part of a tree by a dict."""

        def replace(x):
            if not isinstance(x, self._type):
                return x
            leaves = self._treedef.flatten_up_to(x)
            return {
                one.name: part
                for layout, leaf in zip(self._leaves, leaves, strict=True)
                for one, part in canonical.parts(layout, leaf)
            }

        return jax.tree.map(
            replace, tree, is_leaf=lambda x: isinstance(x, self._type)
        )

    def to_native(self, tree: Any) -> Any:
        """Inverts `to_names`."""

        def replace(x):
            if not self._is_named(x):
                return x
            return self._treedef.unflatten(
                canonical.whole(layout, lambda one: x[one.name])
                for layout in self._leaves
            )

        return jax.tree.map(replace, tree, is_leaf=self._is_named)

    def to_canonical(self, tree: Any) -> Any:
        """Returns the arrays of a parameter tree in canonical axis order."""
        return {
            name: self.layouts[name].to_canonical(x)
            for name, x in self.to_names(tree).items()
        }

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
