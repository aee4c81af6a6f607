"""Flax's column of the layer table: a function for each row, which takes the
row's hyper-parameters and returns the layer of the same meaning.
"""

import importlib
from typing import Any

import jax
import numpy as np
from flax import nnx

from common.layers.table import Layer, name_of, require_variables, stem
from common.protocol import Arrays
from impl_flax import canonical
from impl_flax.table import calls


class Counterpart:
    """A row of the table in Flax NNX, as a function of canonical arrays."""

    def __init__(self, layer: Layer):
        """Builds the layer, with shapes in place of arrays.

        Raises:
            ValueError: if its arrays are not those that the row names.
        """
        name = name_of(type(layer))
        table = importlib.import_module(f"impl_flax.table.{stem(layer)}")
        self.call = getattr(table, "CALLS", {}).get(name, calls.on_batch)
        make = getattr(table, name)
        constants = {}

        def build():
            module = _as_module(make(**layer.options(), rngs=nnx.Rngs(0)))
            for path, leaf in nnx.to_flat_state(nnx.state(module)):
                if isinstance(leaf, np.ndarray):  # a mask, say
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
        """Returns the layer that holds these arrays."""
        # The map makes Variables that this trace may write to.
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
    """A plain function, such as `nnx.avg_pool`, in a module's place."""

    def __init__(self, function: Any):
        self.function = function

    def __call__(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def _as_module(layer: Any) -> nnx.Module:
    return layer if isinstance(layer, nnx.Module) else _Function(layer)
