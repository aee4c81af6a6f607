"""Equinox's column of the layer table: a constructor for each row.

Each module registers the constructors of one family; see `column.py`.
"""

import functools
from typing import Any

import equinox as eqx
import jax.random as jr

from common.layers import Layer
from common.layers.constructors import Constructor
from common.layers.table import require_variables
from common.layouts import Layout, Role
from common.protocol import Arrays
from impl_equinox.canonical import Layouts, abstract


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
        make = eqx.nn.make_with_state(constructor.make)
        self.make = functools.partial(make, **layer.options())
        self.native = abstract(lambda: self.make(key=jr.key(0)))
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

    def initial(self, seed: int) -> tuple[Arrays, Arrays]:
        """Returns the arrays of a newly constructed layer."""
        return self.read(self.make(key=jr.key(seed)))

    def native_arrays(self) -> dict[str, Layout]:
        """Returns how each canonical array is made of the layer's own."""
        return self.layouts.dotted()

    def write(self, params: Any, buffers: Any) -> Any:
        """Returns the layer and its state with the given arrays."""
        arrays, roles = {**params, **buffers}, (Role.PARAMETER, Role.BUFFER)
        return self.layouts.write(self.native, arrays, *roles)

    def read(self, native: Any) -> tuple[Arrays, Arrays]:
        """Inverts `write`."""
        return (
            self.layouts.read(native, Role.PARAMETER),
            self.layouts.read(native, Role.BUFFER),
        )
