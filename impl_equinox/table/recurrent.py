"""Equinox's recurrent layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from impl_equinox import layers

CELLS = {
    "lstm": eqx.nn.LSTMCell,
    "gru": eqx.nn.GRUCell,
    "simple": layers.SimpleCell,
}


def lstm_cell(input_size, hidden_size, *, use_bias, key):
    """Makes a long short-term memory, which takes `(x, (h, c))`."""
    return eqx.nn.LSTMCell(input_size, hidden_size, use_bias, key=key)


optimized_lstm_cell = lstm_cell


def gru_cell(input_size, hidden_size, *, use_bias, key):
    """Makes a gated recurrent unit, which takes `(x, h)`."""
    return eqx.nn.GRUCell(input_size, hidden_size, use_bias, key=key)


def simple_cell(input_size, hidden_size, *, residual, key):
    """Makes a plain recurrent cell, which takes `(x, h)`."""
    return layers.SimpleCell(input_size, hidden_size, residual, key=key)


def rnn(
    input_size, hidden_size, *, cell, reverse, keep_order, return_carry, key
):
    """Makes a layer that runs a cell along a sequence."""
    return layers.RNN(
        CELLS[cell](input_size, hidden_size, key=key),
        reverse=reverse,
        keep_order=keep_order,
        return_carry=return_carry,
    )


def bidirectional(input_size, hidden_size, *, cell, return_carry, key):
    """Makes a layer that runs two cells along a sequence, one backwards."""
    first, second = jr.split(key)
    return layers.Bidirectional(
        CELLS[cell](input_size, hidden_size, key=first),
        CELLS[cell](input_size, hidden_size, key=second),
        return_carry=return_carry,
    )


def _call_lstm_cell(layer, state, x, h, c, *, key):
    del key
    return jax.vmap(layer)(x, (h, c)), state


def _call_rnn(layer, state, xs, *rest, key):
    del key
    lengths, carry = _split(rest)
    outputs = _run(layer, xs, _carry(carry), lengths)
    if layer.return_carry:
        carry, outputs = outputs
        outputs = (_arrays(carry), outputs)
    return outputs, state


def _call_bidirectional(layer, state, xs, *rest, key):
    del key
    lengths, carry = _split(rest)
    half = len(carry) // 2
    carries = (_carry(carry[:half]), _carry(carry[half:]))
    outputs = _run(layer, xs, carries, lengths)
    if layer.return_carry:
        carries, outputs = outputs
        outputs = (tuple(map(_arrays, carries)), outputs)
    return outputs, state


def _run(layer, xs, carry, lengths):
    """Maps over the batch; what is `None` has no array to map over."""

    def run(xs, carry, length):
        return layer(xs, carry, length=length)

    return jax.vmap(run)(xs, carry, lengths)


def _split(rest):
    """Returns the lengths, or `None`, and the arrays of a carry, or none."""
    if rest and jnp.issubdtype(rest[0].dtype, jnp.integer):
        return rest[0], rest[1:]
    return None, rest


def _carry(arrays):
    """What a cell takes: nothing, h, or (h, c)."""
    return arrays[0] if len(arrays) == 1 else arrays or None


def _arrays(carry):
    return carry if isinstance(carry, tuple) else (carry,)


CALLS = {
    "lstm_cell": _call_lstm_cell,
    "optimized_lstm_cell": _call_lstm_cell,
    "rnn": _call_rnn,
    "bidirectional": _call_bidirectional,
}
