"""Parameters and the optimizer's state as flat dicts, by canonical name."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from common.state import Layout
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
        """Like `to_names`, with the arrays in canonical axis order."""

        def transform(named):
            return {
                name: self.layouts[name].to_canonical(x) if _is_array(x) else x
                for name, x in named.items()
            }

        return self._map_named(transform, self.to_names(tree))

    def from_canonical(self, tree: Any) -> Any:
        """Inverts `to_canonical`."""

        def transform(named):
            return {
                name: self.layouts[name].to_native(x) if _is_array(x) else x
                for name, x in named.items()
            }

        return self.to_native(self._map_named(transform, tree))

    def _map_named(self, function: Callable[[Any], Any], tree: Any) -> Any:
        return jax.tree.map(
            lambda x: function(x) if self._is_named(x) else x,
            tree,
            is_leaf=self._is_named,
        )

    def _is_named(self, x: Any) -> bool:
        return isinstance(x, dict) and x.keys() == self.layouts.keys()


def _is_array(x: Any) -> bool:
    # Not `optax.MaskedNode`, which takes the place of an array.
    return hasattr(x, "shape")
