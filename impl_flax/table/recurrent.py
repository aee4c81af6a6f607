"""Flax's recurrent layers."""

import jax
import jax.numpy as jnp
from flax import nnx

from impl_flax import layers

CELLS = {
    "lstm": nnx.OptimizedLSTMCell,
    "gru": layers.GRUCell,
    "simple": nnx.SimpleCell,
}


def lstm_cell(input_size, hidden_size, *, use_bias, rngs):
    """Makes a long short-term memory, which takes `((c, h), x)`."""
    cell = nnx.LSTMCell(input_size, hidden_size, rngs=rngs)
    if not use_bias:
        for gate in (cell.hi, cell.hf, cell.hg, cell.ho):
            _drop_bias(gate)
    return cell


def optimized_lstm_cell(input_size, hidden_size, *, use_bias, rngs):
    """Makes a long short-term memory, which takes `((c, h), x)`."""
    cell = nnx.OptimizedLSTMCell(input_size, hidden_size, rngs=rngs)
    if not use_bias:
        _drop_bias(cell.dense_h)
    return cell


def _drop_bias(linear):
    """The cells have no such option; a zero bias would still be trained."""
    linear.use_bias = False
    linear.bias = nnx.data(None)


def gru_cell(input_size, hidden_size, *, use_bias, rngs):
    """Makes a gated recurrent unit, which takes `(h, x)`."""
    return layers.GRUCell(
        input_size, hidden_size, use_bias=use_bias, rngs=rngs
    )


def simple_cell(input_size, hidden_size, *, residual, rngs):
    """Makes a plain recurrent cell, which takes `(h, x)`."""
    return nnx.SimpleCell(
        input_size,
        hidden_size,
        residual=residual,
        # By default it computes in float32, whatever it is given.
        dtype=None,  # pyright: ignore[reportArgumentType]
        rngs=rngs,
    )


def rnn(
    input_size, hidden_size, *, cell, reverse, keep_order, return_carry, rngs
):
    """Makes a layer that runs a cell along a sequence."""
    return nnx.RNN(
        _cell(cell, input_size, hidden_size, rngs),
        reverse=reverse,
        keep_order=keep_order,
        return_carry=return_carry,
    )


def bidirectional(input_size, hidden_size, *, cell, return_carry, rngs):
    """Makes a layer that runs two cells along a sequence, one backwards."""
    return nnx.Bidirectional(
        nnx.RNN(_cell(cell, input_size, hidden_size, rngs)),
        nnx.RNN(_cell(cell, input_size, hidden_size, rngs)),
        return_carry=return_carry,
    )


def _cell(cell, input_size, hidden_size, rngs):
    # A SimpleCell computes in float32 by default, whatever it is given.
    return CELLS[cell](input_size, hidden_size, dtype=None, rngs=rngs)


def _call_lstm_cell(layer, x, h, c, *, key):
    del key
    (c, h), _ = layer((c, h), x)
    return h, c


def _call_cell(layer, x, h, *, key):
    del key
    h, _ = layer(h, x)
    return h


def _call_rnn(layer, xs, *rest, key):
    del key
    lengths, carry = _split(rest)
    outputs = layer(
        xs,
        initial_carry=_carry(layer.cell, xs, carry),
        seq_lengths=lengths,
    )
    if layer.return_carry:
        carry, outputs = outputs
        outputs = (_arrays(carry), outputs)
    return outputs


def _call_bidirectional(layer, xs, *rest, key):
    del key
    lengths, carry = _split(rest)
    half = len(carry) // 2
    outputs = layer(
        xs,
        initial_carry=(
            _carry(layer.forward_rnn.cell, xs, carry[:half]),
            _carry(layer.backward_rnn.cell, xs, carry[half:]),
        ),
        seq_lengths=lengths,
    )
    if layer.return_carry:
        carries, outputs = outputs
        outputs = (tuple(map(_arrays, carries)), outputs)
    return outputs


def _split(rest):
    """Returns the lengths, or `None`, and the arrays of a carry, or none."""
    if rest and jnp.issubdtype(rest[0].dtype, jnp.integer):
        return rest[0], rest[1:]
    return None, rest


def _carry(cell, xs, arrays):
    """What a cell takes: h or (c, h), where `arrays` are (h,) or (h, c)."""
    if not arrays:
        # It comes in the cell's `param_dtype`, and the scan must be all one.
        zeros = cell.initialize_carry(xs[:, 0].shape, nnx.Rngs(0))
        return jax.tree.map(lambda x: x.astype(xs.dtype), zeros)
    return arrays[0] if len(arrays) == 1 else arrays[::-1]


def _arrays(carry):
    return carry[::-1] if isinstance(carry, tuple) else (carry,)


CALLS = {
    "lstm_cell": _call_lstm_cell,
    "optimized_lstm_cell": _call_lstm_cell,
    "gru_cell": _call_cell,
    "simple_cell": _call_cell,
    "rnn": _call_rnn,
    "bidirectional": _call_bidirectional,
}
