"""Recurrent cells, and what runs a cell along a sequence."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from common.layers._initial import uniform
from common.layers._layer import Layer, Side, extent, named, within
from common.protocol import Arrays, Shaped, Variable

Cell = Literal["lstm", "gru", "simple"]
Carry = tuple[Float[Array, "B H"], ...]
"""The hidden state h first; an LSTM's memory c second."""

# Rows of the weights, in multiples of the hidden size.
GATES = {"lstm": 4, "gru": 3, "simple": 1}


def cell_variables(
    cell: Cell, input_size: int, hidden_size: int, *, bias: bool = True
) -> dict[str, Variable]:
    """The weights of the input and of the hidden state, and the biases.

    With H the hidden size and G the number of gates: weight_ih (G*H, in),
    weight_hh (G*H, H), bias (G*H,), and a GRU's bias_n (H,), all
    U(-1/sqrt(H), 1/sqrt(H)).

    Reference: the initialisation of `torch.nn.LSTMCell` and
        `eqx.nn.LSTMCell`.
    """
    init = uniform(1 / math.sqrt(hidden_size))
    rows = GATES[cell] * hidden_size
    variables = {
        "weight_ih": Variable((rows, input_size), init),
        "weight_hh": Variable((rows, hidden_size), init),
    }
    if bias:
        variables["bias"] = Variable((rows,), init)
    if bias and cell == "gru":
        variables["bias_n"] = Variable((hidden_size,), init)
    return variables


def lstm_cell(
    x: Float[Array, "B I"],
    h: Float[Array, "B H"],
    c: Float[Array, "B H"],
    weight_ih: Float[Array, "4*H I"],
    weight_hh: Float[Array, "4*H H"],
    bias: Float[Array, " 4*H"] | None = None,
) -> tuple[Float[Array, "B H"], Float[Array, "B H"]]:
    """Takes one step of a long short-term memory; returns the new (h, c).

    With the gates i, f, g, o in this order in the arrays' rows,
    `c' = sigmoid(f) * c + sigmoid(i) * tanh(g)` and
    `h' = sigmoid(o) * tanh(c')`.

    Reference: Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997,
        with the forget gate of Gers et al., 2000; `torch.nn.LSTMCell`.
    """
    gates = x @ weight_ih.T + h @ weight_hh.T
    if bias is not None:
        gates = gates + bias
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = lax.logistic(f) * c + lax.logistic(i) * jnp.tanh(g)
    return lax.logistic(o) * jnp.tanh(c), c


def gru_cell(
    x: Float[Array, "B I"],
    h: Float[Array, "B H"],
    weight_ih: Float[Array, "3*H I"],
    weight_hh: Float[Array, "3*H H"],
    bias: Float[Array, " 3*H"] | None = None,
    bias_n: Float[Array, " H"] | None = None,
) -> Float[Array, "B H"]:
    """Takes one step of a gated recurrent unit; returns the new h.

    With the gates r, z, n in this order in the arrays' rows, `a` what comes
    from the input and `b` what comes from the hidden state,
    `n = tanh(a_n + sigmoid(a_r + b_r) * (b_n + bias_n))` and
    `h' = n + sigmoid(a_z + b_z) * (h - n)`.

    Reference: Cho et al., "Learning Phrase Representations using RNN
        Encoder-Decoder", 2014, arXiv:1406.1078, in the form of
        `torch.nn.GRUCell`, which resets after the product.
    """
    from_input = x @ weight_ih.T
    if bias is not None:
        from_input = from_input + bias
    a_r, a_z, a_n = jnp.split(from_input, 3, axis=-1)
    b_r, b_z, b_n = jnp.split(h @ weight_hh.T, 3, axis=-1)
    if bias_n is not None:
        b_n = b_n + bias_n
    n = jnp.tanh(a_n + lax.logistic(a_r + b_r) * b_n)
    return n + lax.logistic(a_z + b_z) * (h - n)


def simple_cell(
    x: Float[Array, "B I"],
    h: Float[Array, "B H"],
    weight_ih: Float[Array, "H I"],
    weight_hh: Float[Array, "H H"],
    bias: Float[Array, " H"],
    *,
    residual: bool = False,
) -> Float[Array, "B H"]:
    """Computes `tanh(weight_ih x + bias + weight_hh h)`, the new h.

    With `residual`, h is added inside the tanh.

    Reference: Elman, "Finding Structure in Time", 1990;
        `flax.nnx.SimpleCell`.
    """
    new = x @ weight_ih.T + bias + h @ weight_hh.T
    return jnp.tanh(new + h if residual else new)


def _gru(x: Array, h: Array, **params: Array) -> Carry:
    return (gru_cell(x, h, **params),)


def _simple(
    x: Array, h: Array, weight_ih: Array, weight_hh: Array, bias: Array
) -> Carry:
    return (simple_cell(x, h, weight_ih, weight_hh, bias),)


STEPS: Mapping[Cell, Callable[..., Carry]] = {
    "lstm": lstm_cell,
    "gru": _gru,
    "simple": _simple,
}


def rnn(
    cell: Cell,
    params: Arrays,
    xs: Float[Array, "B T I"],
    carry: Carry | None = None,
    lengths: Int[Array, " B"] | None = None,
    *,
    reverse: bool = False,
    keep_order: bool = False,
) -> tuple[Float[Array, "B T H"], Carry]:
    """Runs a cell along each sequence of a batch.

    `lengths` says where the padding of each sequence starts: the carry that
    is returned is the one before it, and `reverse` turns the part before it
    and the padding, each in its place. The padding is run through all the
    same, so the outputs there mean nothing.

    Args:
        cell: what to run.
        params: the cell's arrays, by leaf name.
        xs: the sequences.
        carry: before the first step; zeros if `None`.
        lengths: from 1 to T; T if `None`.
        reverse: whether to start at the end.
        keep_order: whether outputs in reverse are put in the inputs' order.

    Returns:
        The hidden state after each step, and the last carry.

    Reference: `flax.nnx.RNN`.
    """
    batch, steps, _ = xs.shape
    if carry is None:
        zeros = jnp.zeros((batch, params["weight_hh"].shape[1]), xs.dtype)
        carry = (zeros, zeros) if cell == "lstm" else (zeros,)
    if lengths is None:
        lengths = jnp.full(batch, steps)
    order = (jnp.arange(steps)[::-1] + lengths[:, None]) % steps

    def turn(x):
        return jnp.take_along_axis(x, order[..., None], axis=1)

    def step(carry, x):
        carry = STEPS[cell](x, *carry, **params)
        return carry, carry

    inputs = turn(xs) if reverse else xs
    _, carries = lax.scan(step, carry, jnp.moveaxis(inputs, 1, 0))
    carries = tuple(jnp.moveaxis(x, 0, 1) for x in carries)
    last = tuple(x[jnp.arange(batch), lengths - 1] for x in carries)
    outputs = turn(carries[0]) if reverse and keep_order else carries[0]
    return outputs, last


def bidirectional(
    cell: Cell,
    forward: Arrays,
    backward: Arrays,
    xs: Float[Array, "B T I"],
    carries: tuple[Carry | None, Carry | None] = (None, None),
    lengths: Int[Array, " B"] | None = None,
) -> tuple[Float[Array, "B T H2"], tuple[Carry, Carry]]:
    """Runs one cell forward and another backward, and joins the outputs.

    Returns:
        Both hidden states after each step, in the inputs' order, and the
        last carry of each.

    Reference: Schuster and Paliwal, "Bidirectional Recurrent Neural
        Networks", 1997; `flax.nnx.Bidirectional`.
    """
    first, second = carries
    ys, first = rnn(cell, forward, xs, first, lengths)
    zs, second = rnn(
        cell, backward, xs, second, lengths, reverse=True, keep_order=True
    )
    return jnp.concatenate((ys, zs), axis=-1), (first, second)


# --- cells ------------------------------------------------------------------

SAME = {"input_size": "in_features", "hidden_size": "hidden_features"}


def _small(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    # Where a tanh saturates, its derivative 1 - tanh^2 is all rounding.
    return rng.normal(size=shape) / 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Cell(Layer):
    """One step from a carry to the next."""

    family = "recurrent"

    input_size: int = 4
    hidden_size: int = 3

    @property
    def inputs(self) -> tuple[Shaped, ...]:
        return Shaped((self.input_size,)), Shaped((self.hidden_size,))

    def draw(self, rng, batch_size):
        return tuple(
            _small(rng, (batch_size, *it.shape)) for it in self.inputs
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LSTMCell(_Cell):
    """One step of a long short-term memory, from (h, c) to the new (h, c)."""

    equinox = Side(("LSTMCell",), page="rnn")
    flax = Side(("LSTMCell",), page="recurrent")
    same = SAME

    use_bias: bool = True

    @property
    def inputs(self):
        x, hidden = super().inputs
        return x, hidden, hidden

    def variables(self):
        return cell_variables(
            "lstm", self.input_size, self.hidden_size, bias=self.use_bias
        )

    def forward(self, params, buffers, x, h, c, *, key, training):
        return lstm_cell(x, h, c, **params), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizedLSTMCell(LSTMCell):
    """The same, with one product for the four gates."""

    flax = Side(("OptimizedLSTMCell",), page="recurrent")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GRUCell(_Cell):
    """One step of a gated recurrent unit, from h to the new h."""

    equinox = Side(("GRUCell",), page="rnn")
    flax = Side(("GRUCell",), "own", "GRUCell", page="recurrent")
    same = SAME

    use_bias: bool = True

    def variables(self):
        return cell_variables(
            "gru", self.input_size, self.hidden_size, bias=self.use_bias
        )

    def forward(self, params, buffers, x, h, *, key, training):
        return gru_cell(x, h, **params), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimpleCell(_Cell):
    """One step of a plain recurrent network, from h to the new h."""

    equinox = Side((), "own", "SimpleCell")
    flax = Side(("SimpleCell",), "settings", page="recurrent")
    same = SAME

    residual: bool = False

    def variables(self):
        return cell_variables("simple", self.input_size, self.hidden_size)

    def forward(self, params, buffers, x, h, *, key, training):
        return simple_cell(x, h, **params, residual=self.residual), {}


# --- sequences --------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sequence(Layer):
    """What runs cells along a sequence, and what it is called with."""

    family = "recurrent"

    input_size: int = 3
    hidden_size: int = 4
    cell: Cell = "lstm"
    return_carry: bool = True
    steps: int = extent(4)
    seq_lengths: bool = extent(False)
    initial_carry: bool = extent(False)

    @property
    def carry(self) -> tuple[Shaped, ...]:
        """One example of the carry."""
        hidden = Shaped((self.hidden_size,))
        return (hidden, hidden) if self.cell == "lstm" else (hidden,)

    @property
    def inputs(self):
        sequence = Shaped((self.steps, self.input_size))
        lengths = (Shaped((), "int"),) if self.seq_lengths else ()
        return sequence, *lengths, *(self.carry if self.initial_carry else ())

    def draw(self, rng, batch_size):
        def one(shaped):
            if shaped.kind == "int":
                return rng.integers(1, self.steps + 1, size=batch_size)
            return _small(rng, (batch_size, *shaped.shape))

        return tuple(map(one, self.inputs))

    def split(
        self, args: tuple[Array, ...]
    ) -> tuple[Array | None, tuple[Array, ...] | None]:
        """Returns the lengths and the carry among what follows the input."""
        lengths, *carry = args if self.seq_lengths else (None, *args)
        return lengths, tuple(carry) if self.initial_carry else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RNN(_Sequence):
    """Runs a cell along a sequence."""

    equinox = Side((), "own", "RNN")
    flax = Side(("RNN",), page="recurrent")

    reverse: bool = False
    keep_order: bool = False

    def variables(self):
        return named(
            "cell",
            cell_variables(self.cell, self.input_size, self.hidden_size),
        )

    def forward(self, params, buffers, xs, *args, key, training):
        lengths, carry = self.split(args)
        ys, carry = rnn(
            self.cell,
            within("cell", params),
            xs,
            carry,
            lengths,
            reverse=self.reverse,
            keep_order=self.keep_order,
        )
        return (carry, ys) if self.return_carry else ys, {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bidirectional(_Sequence):
    """Runs a cell along a sequence, and another one backwards."""

    equinox = Side((), "own", "Bidirectional")
    flax = Side(("Bidirectional",), page="recurrent")

    @property
    def carry(self):
        return super().carry * 2

    def variables(self):
        cell = cell_variables(self.cell, self.input_size, self.hidden_size)
        return {
            **named("forward_rnn.cell", cell),
            **named("backward_rnn.cell", cell),
        }

    def forward(self, params, buffers, xs, *args, key, training):
        lengths, carry = self.split(args)
        half = len(self.carry) // 2
        ys, carry = bidirectional(
            self.cell,
            within("forward_rnn.cell", params),
            within("backward_rnn.cell", params),
            xs,
            (carry[:half], carry[half:]) if carry else (None, None),
            lengths,
        )
        return (carry, ys) if self.return_carry else ys, {}
