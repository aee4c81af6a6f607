"""Flax's column of the layer table: a constructor for each row.

Each module registers the constructors of one family; see `column.py`.
"""

from typing import Any

import jax
import numpy as np
from flax import nnx

from common.layers import Layer
from common.layers.constructors import Constructor
from common.layers.table import require_variables
from common.protocol import Arrays
from impl_flax import canonical


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
        constants: dict[tuple[Any, ...], np.ndarray] = {}

        def build() -> nnx.Module:
            made = constructor.make(**layer.options(), rngs=nnx.Rngs(0))
            module = _as_module(made)
            for path, leaf in nnx.to_flat_state(nnx.state(module)):
                if isinstance(leaf, np.ndarray):  # such as a mask
                    constants[path] = leaf
            return module

        module = nnx.eval_shape(build)
        self.parameters = canonical.layouts(module, nnx.Param)
        self.buffers = canonical.layouts(module, nnx.BatchStat)
        self.graphdef, abstract = nnx.split(module)
        self.abstract = nnx.from_flat_state(
            dict(nnx.to_flat_state(abstract)) | constants
        )
        require_variables(
            layer,
            canonical.names(self.parameters),
            canonical.names(self.buffers),
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
        return outputs, canonical.read(module, self.buffers)

    def write(self, params: Any, buffers: Any) -> nnx.Module:
        """Returns the layer with the given arrays."""
        # Copies the Variables, so that this trace can write to them.
        abstract = jax.tree.map(lambda x: x, self.abstract)
        module = nnx.merge(self.graphdef, abstract)
        canonical.write(module, self.parameters, params)
        canonical.write(module, self.buffers, buffers)
        return module

    def read(self, native: nnx.Module) -> tuple[Arrays, Arrays]:
        """Inverts `write`."""
        return (
            canonical.read(native, self.parameters),
            canonical.read(native, self.buffers),
        )


class _Function(nnx.Module):
    """Wraps a function such as `nnx.avg_pool` in a module."""

    def __init__(self, function: Any):
        self.function = function

    def __call__(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def _as_module(layer: Any) -> nnx.Module:
    return layer if isinstance(layer, nnx.Module) else _Function(layer)
