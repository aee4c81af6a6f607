"""The simple recurrent cell of Flax, and layers that scan a cell.

The layers act on one example, and accept any cell with the signature
`cell(x, carry)`, such as `eqx.nn.LSTMCell` and `eqx.nn.GRUCell`.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray


class SimpleCell(eqx.Module):
    r"""A simple recurrent cell, also known as an Elman cell.

    .. math::
        h' = \tanh(W_{ih} x + b + W_{hh} h)

    With `residual=True`, :math:`h` is added inside the tanh.

    Example:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from impl_equinox.layers import SimpleCell
        >>> cell = SimpleCell(3, 4, key=jax.random.key(0))
        >>> cell(jnp.ones(3), jnp.zeros(4)).shape
        (4,)

    References:
        Elman, "Finding Structure in Time", 1990. Counterpart:
        `nnx.SimpleCell`.
    """

    weight_ih: Float[Array, "H I"]
    weight_hh: Float[Array, "H H"]
    bias: Float[Array, " H"]
    input_size: int = eqx.field(static=True)
    hidden_size: int = eqx.field(static=True)
    residual: bool = eqx.field(static=True)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        residual: bool = False,
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        """Creates a cell, initialized like `eqx.nn.GRUCell`.

        Args:
            input_size: the number of input features.
            hidden_size: the number of features of the hidden state.
            residual: whether to add the hidden state inside the tanh.
            dtype: the dtype of the parameters, by default JAX's default
                float dtype.
            key: a PRNG key for the initial parameters.
        """
        bound = 1 / math.sqrt(hidden_size)

        def uniform(key, *shape):
            return jr.uniform(key, shape, dtype, -bound, bound)

        ih_key, hh_key, bias_key = jr.split(key, 3)
        self.weight_ih = uniform(ih_key, hidden_size, input_size)
        self.weight_hh = uniform(hh_key, hidden_size, hidden_size)
        self.bias = uniform(bias_key, hidden_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.residual = residual

    def __call__(
        self,
        input: Float[Array, " I"],
        hidden: Float[Array, " H"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, " H"]:
        """Returns the next hidden state.

        Args:
            input: the input of this step.
            hidden: the hidden state.
            key: ignored; provided for compatibility with other layers.
        """
        del key
        new = self.weight_ih @ input + self.bias + self.weight_hh @ hidden
        return jnp.tanh(new + hidden if self.residual else new)


class RNN(eqx.Module):
    r"""Scans a cell over a sequence.

    .. math::
        h_t = \mathrm{cell}(x_t, h_{t-1}), \qquad t = 1, \ldots, T

    Example:

        >>> import equinox as eqx
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from impl_equinox.layers import RNN
        >>> rnn = RNN(eqx.nn.GRUCell(3, 4, key=jax.random.key(0)))
        >>> rnn(jnp.ones((5, 3))).shape
        (5, 4)

    References:
        Counterpart: `nnx.RNN`.
    """

    cell: Any
    reverse: bool = eqx.field(static=True)
    keep_order: bool = eqx.field(static=True)
    return_carry: bool = eqx.field(static=True)

    def __init__(
        self,
        cell: Any,
        reverse: bool = False,
        keep_order: bool = False,
        return_carry: bool = False,
    ):
        """Wraps a cell.

        Args:
            cell: a cell with the signature `cell(x, carry) -> carry`.
            reverse: whether to scan from the last step to the first.
            keep_order: whether the outputs of a reversed scan are returned
                in the order of the inputs.
            return_carry: whether to return `(carry, outputs)`.
        """
        self.cell = cell
        self.reverse = reverse
        self.keep_order = keep_order
        self.return_carry = return_carry

    def __call__(
        self,
        xs: Float[Array, "T I"],
        carry: Any = None,
        *,
        length: Int[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Any:
        """Scans one example.

        Args:
            xs: the sequence.
            carry: the initial carry, by default zeros.
            length: the number of steps before the padding. The final carry
                is that of the last step before the padding, and `reverse`
                reverses only the steps before the padding.
            key: ignored; provided for compatibility with other layers.

        Returns:
            The hidden state after each step, or `(carry, outputs)` with
            `return_carry`.
        """
        del key
        if carry is None:
            carry = zero_carry(self.cell)
        steps = len(xs)
        order = jnp.arange(steps)[::-1]
        if length is not None:
            order = (order + length) % steps

        def step(carry, x):
            carry = self.cell(x, carry)
            return carry, carry

        last, carries = lax.scan(
            step, carry, xs[order] if self.reverse else xs
        )
        if length is not None:
            # The initial carry is the one after 0 steps.
            last = jax.tree.map(
                lambda first, x: jnp.concatenate((first[None], x))[length],
                carry,
                carries,
            )
        ys = carries[0] if isinstance(carries, tuple) else carries
        if self.reverse and self.keep_order:
            ys = ys[order]
        return (last, ys) if self.return_carry else ys


class Bidirectional(eqx.Module):
    r"""Scans one cell forward and another backward over a sequence.

    .. math::
        y_t = [\overrightarrow{h}_t, \overleftarrow{h}_t]

    Example:

        >>> import equinox as eqx
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from impl_equinox.layers import Bidirectional
        >>> key1, key2 = jax.random.split(jax.random.key(0))
        >>> rnn = Bidirectional(
        ...     eqx.nn.LSTMCell(3, 4, key=key1),
        ...     eqx.nn.LSTMCell(3, 4, key=key2),
        ... )
        >>> rnn(jnp.ones((5, 3))).shape
        (5, 8)

    References:
        Schuster and Paliwal, "Bidirectional Recurrent Neural Networks",
        1997. Counterpart: `nnx.Bidirectional`.
    """

    forward_rnn: RNN
    backward_rnn: RNN
    return_carry: bool = eqx.field(static=True)

    def __init__(
        self, forward_cell: Any, backward_cell: Any, return_carry: bool = False
    ):
        """Wraps two cells.

        Args:
            forward_cell: a cell with the signature `cell(x, carry) -> carry`.
            backward_cell: a cell with the same signature.
            return_carry: whether to return `(carries, outputs)`.
        """
        self.forward_rnn = RNN(forward_cell, return_carry=True)
        self.backward_rnn = RNN(
            backward_cell, reverse=True, keep_order=True, return_carry=True
        )
        self.return_carry = return_carry

    def __call__(
        self,
        xs: Float[Array, "T I"],
        carries: tuple[Any, Any] = (None, None),
        *,
        length: Int[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Any:
        """Scans one example in both directions.

        Args:
            xs: the sequence.
            carries: the two initial carries, by default zeros.
            length: the number of steps before the padding.
            key: ignored; provided for compatibility with other layers.

        Returns:
            Both hidden states of each step, in the order of the inputs, or
            `(carries, outputs)` with `return_carry`.
        """
        del key
        forward, backward = carries
        forward, ys = self.forward_rnn(xs, forward, length=length)
        backward, zs = self.backward_rnn(xs, backward, length=length)
        outputs = jnp.concatenate((ys, zs), axis=-1)
        carries = (forward, backward)
        return (carries, outputs) if self.return_carry else outputs


def zero_carry(cell: Any) -> Any:
    """Returns an initial carry of zeros in the dtype of the cell."""
    zeros = jnp.zeros(cell.hidden_size, cell.weight_hh.dtype)
    return (zeros, zeros) if isinstance(cell, eqx.nn.LSTMCell) else zeros
