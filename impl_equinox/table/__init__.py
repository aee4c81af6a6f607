"""Equinox's column of the layer table: a constructor for each row.

Each module registers the constructors of one family; see `column.py`.
"""

from typing import Any

import equinox as eqx
import jax.random as jr

from common.layers import Layer
from common.layers.constructors import Constructor
from common.layers.table import require_variables
from common.protocol import Arrays
from impl_equinox import canonical


class Counterpart:
    """A row's layer in Equinox, as a function of canonical arrays."""

    def __init__(self, layer: Layer, constructor: Constructor):
        """Constructs the layer, with shapes in place of arrays.

        Args:
            layer: the row.
            constructor: constructs and calls the Equinox layer.

        Raises:
            ValueError: if its arrays are not those that the row declares.
        """
        self.call = constructor.call
        self.model, self.state = eqx.filter_eval_shape(
            eqx.nn.make_with_state(constructor.make),
            **layer.options(),
            key=jr.key(0),
        )
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
        """Returns the layer and its state with the given arrays."""
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
