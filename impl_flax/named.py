"""Parameters and the optimizer's state as flat dicts, by canonical name."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from common.state import Layout
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
