"""Flax's recurrent layers."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from common.layers import Cell
from impl_flax import layers
from impl_flax.table.column import constructs

CELLS = {
    "lstm": nnx.OptimizedLSTMCell,
    "gru": layers.GRUCell,
    "simple": nnx.SimpleCell,
}


def _drop_bias(linear: nnx.Linear) -> None:
    """Removes a bias, for which the cells have no option."""
    linear.use_bias = False
    linear.bias = nnx.data(None)


def _cell(
    cell: Cell, input_size: int, hidden_size: int, rngs: nnx.Rngs
) -> nnx.RNNCellBase:
    # A SimpleCell computes in float32 by default, whatever its input.
    return CELLS[cell](input_size, hidden_size, dtype=None, rngs=rngs)


def _call_lstm_cell(layer: Any, x: Any, h: Any, c: Any, *, key: Any) -> Any:
    """Calls the cell, whose carry is the pair (c, h)."""
    del key
    (c, h), _ = layer((c, h), x)
    return h, c


def _call_cell(layer: Any, x: Any, h: Any, *, key: Any) -> Any:
    """Calls a cell whose carry is h, and drops the copy it returns."""
    del key
    h, _ = layer(h, x)
    return h


def _call_rnn(layer: Any, xs: Any, *rest: Any, key: Any) -> Any:
    """Calls the layer, with lengths and a carry if given."""
    del key
    lengths, carry = _split(rest)
    outputs = layer(
        xs, initial_carry=_carry(layer.cell, xs, carry), seq_lengths=lengths
    )
    if layer.return_carry:
        carry, outputs = outputs
        outputs = (_arrays(carry), outputs)
    return outputs


def _call_bidirectional(layer: Any, xs: Any, *rest: Any, key: Any) -> Any:
    """Calls the layer, with lengths and carries if given."""
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


def _split(rest: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Separates the lengths, or None, from the arrays of the carry."""
    if rest and jnp.issubdtype(rest[0].dtype, jnp.integer):
        return rest[0], rest[1:]
    return None, rest


def _carry(cell: Any, xs: Any, arrays: tuple[Any, ...]) -> Any:
    """Returns the carry as a cell takes it: h or (c, h)."""
    if not arrays:
        # The cell makes it in its `param_dtype`; a scan needs one dtype.
        shape = xs.shape[0], *xs.shape[2:]
        zeros = cell.initialize_carry(shape, nnx.Rngs(0))
        return jax.tree.map(lambda x: x.astype(xs.dtype), zeros)
    return arrays[0] if len(arrays) == 1 else arrays[::-1]


def _arrays(carry: Any) -> tuple[Any, ...]:
    return carry[::-1] if isinstance(carry, tuple) else (carry,)


@constructs(
    "lstm_cell",
    call=_call_lstm_cell,
    stock=("LSTMCell",),
    page="recurrent",
    keywords={"input_size": "in_features", "hidden_size": "hidden_features"},
)
def lstm_cell(
    input_size: int, hidden_size: int, *, use_bias: bool, rngs: nnx.Rngs
) -> nnx.LSTMCell:
    """Returns a long short-term memory cell, called as `cell((c, h), x)`."""
    cell = nnx.LSTMCell(input_size, hidden_size, rngs=rngs)
    if not use_bias:
        for gate in (cell.hi, cell.hf, cell.hg, cell.ho):
            _drop_bias(gate)
    return cell


@constructs(
    "optimized_lstm_cell",
    call=_call_lstm_cell,
    stock=("OptimizedLSTMCell",),
    page="recurrent",
    keywords={"input_size": "in_features", "hidden_size": "hidden_features"},
)
def optimized_lstm_cell(
    input_size: int, hidden_size: int, *, use_bias: bool, rngs: nnx.Rngs
) -> nnx.OptimizedLSTMCell:
    """Returns a long short-term memory cell, called as `cell((c, h), x)`."""
    cell = nnx.OptimizedLSTMCell(input_size, hidden_size, rngs=rngs)
    if not use_bias:
        _drop_bias(cell.dense_h)
    return cell


@constructs(
    "gru_cell",
    call=_call_cell,
    stock=("GRUCell",),
    kind="custom",
    using="GRUCell",
    page="recurrent",
    keywords={"input_size": "in_features", "hidden_size": "hidden_features"},
)
def gru_cell(
    input_size: int, hidden_size: int, *, use_bias: bool, rngs: nnx.Rngs
) -> nnx.GRUCell:
    """Returns a gated recurrent unit, called as `cell(h, x)`."""
    if use_bias:
        # The stock cell lacks one of the biases.
        return layers.GRUCell(input_size, hidden_size, rngs=rngs)
    cell = nnx.GRUCell(input_size, hidden_size, rngs=rngs)
    _drop_bias(cell.dense_i)
    return cell


@constructs(
    "simple_cell",
    call=_call_cell,
    stock=("SimpleCell",),
    kind="settings",
    page="recurrent",
    keywords={"input_size": "in_features", "hidden_size": "hidden_features"},
)
def simple_cell(
    input_size: int, hidden_size: int, *, residual: bool, rngs: nnx.Rngs
) -> nnx.SimpleCell:
    """Returns a plain recurrent cell, called as `cell(h, x)`."""
    return nnx.SimpleCell(
        input_size,
        hidden_size,
        residual=residual,
        # The cell computes in float32 by default, whatever its input.
        dtype=None,  # pyright: ignore[reportArgumentType]
        rngs=rngs,
    )


@constructs("rnn", call=_call_rnn, stock=("RNN",), page="recurrent")
def rnn(
    input_size: int,
    hidden_size: int,
    *,
    cell: Cell,
    reverse: bool,
    keep_order: bool,
    return_carry: bool,
    rngs: nnx.Rngs,
) -> nnx.RNN:
    """Returns a layer that runs a cell along a sequence."""
    return nnx.RNN(
        _cell(cell, input_size, hidden_size, rngs),
        reverse=reverse,
        keep_order=keep_order,
        return_carry=return_carry,
    )


@constructs(
    "bidirectional",
    call=_call_bidirectional,
    stock=("Bidirectional",),
    page="recurrent",
)
def bidirectional(
    input_size: int,
    hidden_size: int,
    *,
    cell: Cell,
    return_carry: bool,
    rngs: nnx.Rngs,
) -> nnx.Bidirectional:
    """Returns a layer that runs one cell forward and one backward."""
    return nnx.Bidirectional(
        nnx.RNN(_cell(cell, input_size, hidden_size, rngs)),
        nnx.RNN(_cell(cell, input_size, hidden_size, rngs)),
        return_carry=return_carry,
    )
