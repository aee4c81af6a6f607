"""Equinox's GRUCell, which `nnx.RNN` takes like any stock cell."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class GRUCell(nnx.GRUCell):
    """An `nnx.GRUCell` with the bias that the reset gate acts on.

    `nnx.GRUCell` shows it in its formula, as b_hn, but has no such
    parameter. Here it is `bias_n`, and starts at zero.

    Reference: `torch.nn.GRUCell`; `equinox.nn.GRUCell`.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        use_bias: bool = True,
        gate_fn: Callable[[Array], Array] = nnx.sigmoid,
        activation_fn: Callable[[Array], Array] = nnx.tanh,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Makes a cell.

        Args:
            in_features: features of an input.
            hidden_features: features of the hidden state.
            use_bias: whether to add biases.
            gate_fn: of the gates r and z.
            activation_fn: of the new state n.
            dtype: to compute in; that of inputs and parameters if `None`.
            param_dtype: of the parameters, and of the carry that
                `initialize_carry` makes.
            rngs: draws the initial values.
        """
        super().__init__(
            in_features,
            hidden_features,
            gate_fn=gate_fn,
            activation_fn=activation_fn,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        if use_bias:
            self.bias_n = nnx.Param(jnp.zeros(hidden_features, param_dtype))
        else:
            self.bias_n = nnx.data(None)
            self.dense_i.use_bias = False
            self.dense_i.bias = nnx.data(None)

    def __call__(
        self, carry: Float[Array, "*B H"], inputs: Float[Array, "*B I"]
    ) -> tuple[Float[Array, "*B H"], Float[Array, "*B H"]]:
        """Takes one step; returns the new h as the carry and as the output."""
        x_r, x_z, x_n = jnp.split(self.dense_i(inputs), 3, axis=-1)
        h_r, h_z, h_n = jnp.split(self.dense_h(carry), 3, axis=-1)
        if self.bias_n is not None:
            h_n = h_n + self.bias_n[...].astype(h_n.dtype)
        r = self.gate_fn(x_r + h_r)
        z = self.gate_fn(x_z + h_z)
        n = self.activation_fn(x_n + r * h_n)
        h = n + z * (carry - n)
        return h, h
