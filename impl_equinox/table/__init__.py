"""Equinox's column of the layer table: a function for each row, which takes
the row's hyper-parameters and returns the layer of the same meaning.
"""

import importlib
from typing import Any

import equinox as eqx
import jax.random as jr

from common.layers.table import Layer, name_of, require_variables, stem
from common.layouts import Role
from common.protocol import Arrays
from impl_equinox.canonical import Layouts, abstract
from impl_equinox.table import calls


class Counterpart:
    """A row of the table in Equinox, as a function of canonical arrays."""

    def __init__(self, layer: Layer):
        """Builds the layer, with shapes in place of arrays.

        Raises:
            ValueError: if its arrays are not those that the row names.
        """
        name = name_of(type(layer))
        module = importlib.import_module(f"impl_equinox.table.{stem(layer)}")
        self.call = getattr(module, "CALLS", {}).get(name, calls.per_example)
        make = eqx.nn.make_with_state(getattr(module, name))
        self.native = abstract(lambda: make(**layer.options(), key=jr.key(0)))
        self.layouts = Layouts(self.native)
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
        model, state = self.write(params, buffers)
        model = eqx.nn.inference_mode(model, not training)
        outputs, state = self.call(model, state, *inputs, key=key)
        return outputs, self.layouts.read((model, state), Role.BUFFER)

    def write(self, params: Any, buffers: Any) -> Any:
        """Returns the layer and its state that hold these arrays."""
        arrays, roles = {**params, **buffers}, (Role.PARAMETER, Role.BUFFER)
        return self.layouts.write(self.native, arrays, *roles)

    def read(self, native: Any) -> tuple[Arrays, Arrays]:
        """Inverts `write`."""
        return (
            self.layouts.read(native, Role.PARAMETER),
            self.layouts.read(native, Role.BUFFER),
        )
