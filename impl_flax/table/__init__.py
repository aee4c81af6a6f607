"""Flax's column of the layer table: a constructor for each row.

Each module registers the constructors of one family; see `column.py`.
"""

import functools
from typing import Any

import jax
from flax import nnx

from common.layers import Layer
from common.layers.constructors import Constructor
from common.layers.table import require_variables
from common.layouts import Layout, Role
from common.protocol import Arrays
from impl_flax.canonical import Layouts, abstract


class Counterpart:
    """A row's layer in Flax NNX, as a function of canonical arrays."""

    def __init__(self, layer: Layer, constructor: Constructor):
        """Constructs the layer, with shapes in place of arrays.

        Args:
            layer: the row.
            constructor: constructs and calls the Flax layer.

        Raises:
            ValueError: if its arrays are not those that the row declares.
        """
        self.call = constructor.call
        self.make = functools.partial(constructor.make, **layer.options())
        module = abstract(lambda: _as_module(self.make(rngs=nnx.Rngs(0))))
        self.layouts = Layouts(module)
        self.graphdef, self.abstract = nnx.split(module)
        require_variables(
            layer,
            self.layouts.names(Role.PARAMETER),
            self.layouts.names(Role.BUFFER),
        )

    def forward(
        self,
        params: Arrays,
        buffers: Arrays,
        *inputs: Any,
        key: Any,
        training: bool,
    ) -> tuple[Any, Arrays]:
        """Calls the layer on a batch, channels last."""
        module = self.write(params, buffers)
        if training:
            module.train()
        else:
            module.eval()
        layer = module.function if isinstance(module, _Function) else module
        outputs = self.call(layer, *inputs, key=key)
        return outputs, self.layouts.read(module, Role.BUFFER)

    def initial(self, seed: int) -> tuple[Arrays, Arrays]:
        """Returns the arrays of a newly constructed layer."""
        return self.read(_as_module(self.make(rngs=nnx.Rngs(seed))))

    def native_arrays(self) -> dict[str, Layout]:
        """Returns how each canonical array is made of the layer's own."""
        return self.layouts.dotted()

    def write(self, params: Any, buffers: Any) -> nnx.Module:
        """Returns the layer with the given arrays."""
        # Copies the Variables, so that this trace can write to them.
        abstract = jax.tree.map(lambda x: x, self.abstract)
        module = nnx.merge(self.graphdef, abstract)
        arrays, roles = {**params, **buffers}, (Role.PARAMETER, Role.BUFFER)
        return self.layouts.write(module, arrays, *roles)

    def read(self, native: nnx.Module) -> tuple[Arrays, Arrays]:
        """Inverts `write`."""
        return (
            self.layouts.read(native, Role.PARAMETER),
            self.layouts.read(native, Role.BUFFER),
        )


class _Function(nnx.Module):
    """Wraps a function such as `nnx.avg_pool` in a module."""

    def __init__(self, function: Any):
        self.function = function

    def __call__(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def _as_module(layer: Any) -> nnx.Module:
    return layer if isinstance(layer, nnx.Module) else _Function(layer)
