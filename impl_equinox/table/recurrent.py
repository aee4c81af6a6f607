"""Equinox's recurrent layers."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray

from common.layers import Cell
from impl_equinox import layers
from impl_equinox.table.column import constructs

CELLS = {
    "lstm": eqx.nn.LSTMCell,
    "gru": eqx.nn.GRUCell,
    "simple": layers.SimpleCell,
}


def _call_lstm_cell(
    layer: Any, state: Any, x: Any, h: Any, c: Any, *, key: Any
) -> Any:
    """Maps the cell over the batch; its carry is the pair (h, c)."""
    del key
    return jax.vmap(layer)(x, (h, c)), state


def _call_rnn(layer: Any, state: Any, xs: Any, *rest: Any, key: Any) -> Any:
    """Maps the layer over the batch, with lengths and a carry if given."""
    del key
    lengths, carry = _split(rest)
    outputs = _run(layer, xs, _carry(carry), lengths)
    if layer.return_carry:
        carry, outputs = outputs
        outputs = (_arrays(carry), outputs)
    return outputs, state


def _call_bidirectional(
    layer: Any, state: Any, xs: Any, *rest: Any, key: Any
) -> Any:
    """Maps the layer over the batch, with lengths and carries if given."""
    del key
    lengths, carry = _split(rest)
    half = len(carry) // 2
    carries = (_carry(carry[:half]), _carry(carry[half:]))
    outputs = _run(layer, xs, carries, lengths)
    if layer.return_carry:
        carries, outputs = outputs
        outputs = (tuple(map(_arrays, carries)), outputs)
    return outputs, state


def _run(layer: Any, xs: Any, carry: Any, lengths: Any) -> Any:
    """Maps a layer over the batch; the carry and the lengths may be None."""

    def run(xs: Any, carry: Any, length: Any) -> Any:
        return layer(xs, carry, length=length)

    return jax.vmap(run)(xs, carry, lengths)


def _split(rest: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Separates the lengths, or None, from the arrays of the carry."""
    if rest and jnp.issubdtype(rest[0].dtype, jnp.integer):
        return rest[0], rest[1:]
    return None, rest


def _carry(arrays: tuple[Any, ...]) -> Any:
    """Returns the carry as a cell takes it: None, h, or (h, c)."""
    return arrays[0] if len(arrays) == 1 else arrays or None


def _arrays(carry: Any) -> tuple[Any, ...]:
    return carry if isinstance(carry, tuple) else (carry,)


@constructs("lstm_cell", call=_call_lstm_cell, stock=("LSTMCell",), page="rnn")
@constructs(
    "optimized_lstm_cell",
    call=_call_lstm_cell,
    stock=("LSTMCell",),
    page="rnn",
)
def lstm_cell(
    input_size: int, hidden_size: int, *, use_bias: bool, key: PRNGKeyArray
) -> eqx.nn.LSTMCell:
    """Returns a long short-term memory cell, called as `cell(x, (h, c))`."""
    return eqx.nn.LSTMCell(input_size, hidden_size, use_bias, key=key)


@constructs("gru_cell", stock=("GRUCell",), page="rnn")
def gru_cell(
    input_size: int, hidden_size: int, *, use_bias: bool, key: PRNGKeyArray
) -> eqx.nn.GRUCell:
    """Returns a gated recurrent unit, called as `cell(x, h)`."""
    return eqx.nn.GRUCell(input_size, hidden_size, use_bias, key=key)


@constructs("simple_cell", kind="custom", using="SimpleCell")
def simple_cell(
    input_size: int, hidden_size: int, *, residual: bool, key: PRNGKeyArray
) -> layers.SimpleCell:
    """Returns a plain recurrent cell, called as `cell(x, h)`."""
    return layers.SimpleCell(input_size, hidden_size, residual, key=key)


@constructs("rnn", call=_call_rnn, kind="custom", using="RNN")
def rnn(
    input_size: int,
    hidden_size: int,
    *,
    cell: Cell,
    reverse: bool,
    keep_order: bool,
    return_carry: bool,
    key: PRNGKeyArray,
) -> layers.RNN:
    """Returns a layer that runs a cell along a sequence."""
    return layers.RNN(
        CELLS[cell](input_size, hidden_size, key=key),
        reverse=reverse,
        keep_order=keep_order,
        return_carry=return_carry,
    )


@constructs(
    "bidirectional",
    call=_call_bidirectional,
    kind="custom",
    using="Bidirectional",
)
def bidirectional(
    input_size: int,
    hidden_size: int,
    *,
    cell: Cell,
    return_carry: bool,
    key: PRNGKeyArray,
) -> layers.Bidirectional:
    """Returns a layer that runs one cell forward and one backward."""
    first, second = jr.split(key)
    return layers.Bidirectional(
        CELLS[cell](input_size, hidden_size, key=first),
        CELLS[cell](input_size, hidden_size, key=second),
        return_carry=return_carry,
    )
