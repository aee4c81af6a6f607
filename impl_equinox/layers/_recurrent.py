"""Flax's plain cell, and its ways to run a cell along a sequence.

They act on one example, and take any cell that is called as
`cell(x, carry)`, like `eqx.nn.LSTMCell` and `eqx.nn.GRUCell`.
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
    """Computes `tanh(weight_ih x + bias + weight_hh h)`.

    Reference: Elman, "Finding Structure in Time", 1990;
        `flax.nnx.SimpleCell`.
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
        """Draws U(-1/sqrt(H), 1/sqrt(H)), as `eqx.nn.GRUCell` does.

        Args:
            input_size: features of an input.
            hidden_size: features of the hidden state.
            residual: whether to add h inside the tanh.
            dtype: of the parameters; JAX's default if `None`.
            key: for the initial values.
        """
        bound = 1 / math.sqrt(hidden_size)

        def draw(key, *shape):
            return jr.uniform(key, shape, dtype, -bound, bound)

        ih_key, hh_key, bias_key = jr.split(key, 3)
        self.weight_ih = draw(ih_key, hidden_size, input_size)
        self.weight_hh = draw(hh_key, hidden_size, hidden_size)
        self.bias = draw(bias_key, hidden_size)
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
        """Takes one step."""
        del key
        new = self.weight_ih @ input + self.bias + self.weight_hh @ hidden
        return jnp.tanh(new + hidden if self.residual else new)


class RNN(eqx.Module):
    """Runs a cell along a sequence.

    Reference: `flax.nnx.RNN`.
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
            cell: called as `cell(x, carry) -> carry`.
            reverse: whether to start at the end.
            keep_order: whether outputs in reverse are put in the order of
                the inputs.
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
        """Runs along one example.

        Args:
            xs: the sequence.
            carry: before the first step; zeros if `None`.
            length: where padding starts. The carry is the last before it,
                and `reverse` leaves the padding behind.
            key: unused, as every layer takes it.

        Returns:
            The hidden state after each step; with `return_carry` after the
            last carry.
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
            last = jax.tree.map(lambda x: x[length - 1], carries)
        ys = carries[0] if isinstance(carries, tuple) else carries
        if self.reverse and self.keep_order:
            ys = ys[order]
        return (last, ys) if self.return_carry else ys


class Bidirectional(eqx.Module):
    """Runs one cell forward and another backward, and joins the outputs.

    Reference: `flax.nnx.Bidirectional`.
    """

    forward_rnn: RNN
    backward_rnn: RNN
    return_carry: bool = eqx.field(static=True)

    def __init__(
        self, forward_cell: Any, backward_cell: Any, return_carry: bool = False
    ):
        """Wraps two cells.

        Args:
            forward_cell: called as `cell(x, carry) -> carry`.
            backward_cell: another one.
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
        """Runs along one example.

        Args:
            xs: the sequence.
            carries: before the first step of each; zeros if `None`.
            length: where padding starts.
            key: unused, as every layer takes it.

        Returns:
            Both hidden states after each step, in the order of the inputs;
            with `return_carry` after the last carry of each.
        """
        del key
        first, second = carries
        first, ys = self.forward_rnn(xs, first, length=length)
        second, zs = self.backward_rnn(xs, second, length=length)
        joined = jnp.concatenate((ys, zs), axis=-1)
        return ((first, second), joined) if self.return_carry else joined


def zero_carry(cell: Any) -> Any:
    """Returns zeros for a cell's first carry, in its dtype."""
    zeros = jnp.zeros(cell.hidden_size, cell.weight_hh.dtype)
    return (zeros, zeros) if isinstance(cell, eqx.nn.LSTMCell) else zeros
