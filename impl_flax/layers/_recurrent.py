"""The GRU cell of Equinox, which `nnx.RNN` accepts like a stock cell."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class GRUCell(nnx.GRUCell):
    r"""A gated recurrent unit with a bias inside the reset gate.

    .. math::
        r &= \sigma(W_{ir} x + b_{ir} + W_{hr} h) \\
        z &= \sigma(W_{iz} x + b_{iz} + W_{hz} h) \\
        n &= \tanh(W_{in} x + b_{in} + r (W_{hn} h + b_{hn})) \\
        h' &= (1 - z) n + z h

    `nnx.GRUCell` has :math:`b_{hn}` in its formula, but not as a parameter.
    Here it is `bias_n`, which is initialized to zero.

    Example:

        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from impl_flax.layers import GRUCell
        >>> rnn = nnx.RNN(GRUCell(3, 4, rngs=nnx.Rngs(0)))
        >>> rnn(jnp.ones((2, 5, 3), "float32")).shape
        (2, 5, 4)

    References:
        Cho et al., "Learning Phrase Representations using RNN
        Encoder-Decoder for Statistical Machine Translation", 2014,
        arXiv:1406.1078. Counterparts: `equinox.nn.GRUCell`,
        `torch.nn.GRUCell`.
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
        """Creates a cell.

        Args:
            in_features: the number of input features.
            hidden_features: the number of features of the hidden state.
            use_bias: whether to add biases.
            gate_fn: the activation function of the gates r and z.
            activation_fn: the activation function of the candidate state n.
            dtype: the dtype of the computation, by default inferred from the
                inputs and the parameters.
            param_dtype: the dtype of the parameters, and of the carry that
                `initialize_carry` returns.
            rngs: the streams of the initial parameters.
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
        self.bias_n: nnx.Param[Array] | None
        if use_bias:
            self.bias_n = nnx.Param(jnp.zeros(hidden_features, param_dtype))
        else:
            self.bias_n = nnx.data(None)
            self.dense_i.use_bias = False
            self.dense_i.bias = nnx.data(None)

    def __call__(
        self, carry: Float[Array, "*B H"], inputs: Float[Array, "*B I"]
    ) -> tuple[Float[Array, "*B H"], Float[Array, "*B H"]]:
        """Returns the new hidden state, as the carry and as the output.

        Args:
            carry: the hidden state.
            inputs: the inputs of this step.
        """
        x_r, x_z, x_n = jnp.split(self.dense_i(inputs), 3, axis=-1)
        h_r, h_z, h_n = jnp.split(self.dense_h(carry), 3, axis=-1)
        if self.bias_n is not None:
            h_n = h_n + self.bias_n[...].astype(h_n.dtype)
        r = self.gate_fn(x_r + h_r)
        z = self.gate_fn(x_z + h_z)
        n = self.activation_fn(x_n + r * h_n)
        h = n + z * (carry - n)
        return h, h
