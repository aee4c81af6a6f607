"""Equinox's column of the layer table: a function for each row, which takes
the row's hyper-parameters and returns the layer of the same meaning.
"""

import importlib
from typing import Any

import equinox as eqx
import jax.random as jr
import numpy as np

from common.layers.table import Layer, name_of, require_variables, stem
from common.protocol import Arrays
from impl_equinox import canonical
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
        constants: list[Any] = []

        def build(**options):
            built = eqx.nn.make_with_state(getattr(module, name))(**options)
            # NumPy arrays, such as a mask, keep their values.
            constants[:] = [
                eqx.filter(built, lambda leaf: isinstance(leaf, np.ndarray))
            ]
            return built

        abstract = eqx.filter_eval_shape(
            build, **layer.options(), key=jr.key(0)
        )
        self.model, self.state = eqx.combine(*constants, abstract)
        self.parameters = canonical.parameters(self.model)
        self.buffers = canonical.buffers(self.model, self.state)
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
        model, state = self.write(params, buffers)
        model = eqx.nn.inference_mode(model, not training)
        outputs, state = self.call(model, state, *inputs, key=key)
        return outputs, canonical.read(state, self.buffers)

    def write(self, params: Any, buffers: Any) -> Any:
        """Returns the layer and its state that hold these arrays."""
        return (
            canonical.write(self.model, self.parameters, params),
            canonical.write(self.state, self.buffers, buffers),
        )

    def read(self, native: Any) -> tuple[Arrays, Arrays]:
        """Inverts `write`."""
        model, state = native
        params = eqx.filter(model, eqx.is_inexact_array)
        return (
            canonical.read(params, self.parameters),
            canonical.read(state, self.buffers),
        )
