"""Parameters and the optimizer's state as flat dicts, by canonical name."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from common.state import Layout
from common.training import optimizers
from impl_flax import canonical


class NamedParameters:
    """Turns parameter trees of one module into flat dicts, and back."""

    def __init__(self, module: nnx.Module):
        self._paths = canonical.layouts(module, nnx.Param)
        self.layouts: dict[str, Layout] = {
            layout.name: layout for layout in self._paths.values()
        }

    def to_names(self, tree: Any) -> Any:
        """Replaces each `nnx.State` in a tree by a dict."""

        def replace(x):
            if not isinstance(x, nnx.State):
                return x
            return canonical.join(dict(nnx.to_flat_state(x)), self._paths)

        return jax.tree.map(
            replace, tree, is_leaf=lambda x: isinstance(x, nnx.State)
        )

    def to_native(self, tree: Any) -> Any:
        """Inverts `to_names`."""

        def replace(x):
            if not self._is_named(x):
                return x
            return nnx.from_flat_state(canonical.part(x, self._paths))

        return jax.tree.map(replace, tree, is_leaf=self._is_named)

    def to_canonical(self, tree: Any) -> Any:
        """Returns the arrays of a parameter tree in canonical axis order."""
        return {
            name: self.layouts[name].to_canonical(x)
            for name, x in self.to_names(tree).items()
        }

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
