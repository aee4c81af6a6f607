"""Flax's column of the layer table: a function for each row, which takes the
row's hyper-parameters and returns the layer of the same meaning.
"""

import importlib
from typing import Any

import jax
from flax import nnx

from common.layers.table import Layer, name_of, require_variables, stem
from common.layouts import Role
from common.protocol import Arrays
from impl_flax.canonical import Layouts, abstract
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
        module = abstract(
            lambda: _as_module(make(**layer.options(), rngs=nnx.Rngs(0)))
        )
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

    def write(self, params: Any, buffers: Any) -> nnx.Module:
        """Returns the layer that holds these arrays."""
        # The map makes Variables that this trace may write to.
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
    """A plain function, such as `nnx.avg_pool`, in a module's place."""

    def __init__(self, function: Any):
        self.function = function

    def __call__(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def _as_module(layer: Any) -> nnx.Module:
    return layer if isinstance(layer, nnx.Module) else _Function(layer)
