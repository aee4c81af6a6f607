"""Recurrent cells, which take one step."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from common.layers._initial import uniform
from common.layers._layer import Layer
from common.protocol import Shaped, Variable

Cell = Literal["lstm", "gru", "simple"]
Carry = tuple[Float[Array, "B H"], ...]
"""The hidden state h, followed by the memory c of an LSTM."""
Function = Callable[[Array], Array]

# The number of gates, whose weights are stacked in the rows of one array.
GATES = {"lstm": 4, "gru": 3, "simple": 1}


def cell_variables(
    cell: Cell, input_size: int, hidden_size: int, *, bias: bool = True
) -> dict[str, Variable]:
    """Returns the variables of a cell.

    With hidden size H and G gates, these are weight_ih (G*H, in), weight_hh
    (G*H, H), bias (G*H,), and for a GRU bias_n (H,). All are drawn from
    U(-1/sqrt(H), 1/sqrt(H)).

    References:
        The initialization of `torch.nn.LSTMCell` and `eqx.nn.LSTMCell`.
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
    *,
    gate: Function = lax.logistic,
    activation: Function = jnp.tanh,
) -> tuple[Float[Array, "B H"], Float[Array, "B H"]]:
    """Takes one step of a long short-term memory; returns the new (h, c).

    The rows of the weights hold the gates i, f, g and o, in this order. With
    `(i, f, g, o) = weight_ih x + weight_hh h + bias`, computes
    `c' = sigmoid(f) * c + sigmoid(i) * tanh(g)` and
    `h' = sigmoid(o) * tanh(c')`. Other functions may replace sigmoid, by
    `gate`, and tanh, by `activation`.

    References:
        Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997, with the
        forget gate of Gers et al., 2000; `torch.nn.LSTMCell`.
    """
    gates = x @ weight_ih.T + h @ weight_hh.T
    if bias is not None:
        gates = gates + bias
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = gate(f) * c + gate(i) * activation(g)
    return gate(o) * activation(c), c


def gru_cell(
    x: Float[Array, "B I"],
    h: Float[Array, "B H"],
    weight_ih: Float[Array, "3*H I"],
    weight_hh: Float[Array, "3*H H"],
    bias: Float[Array, " 3*H"] | None = None,
    bias_n: Float[Array, " H"] | None = None,
    *,
    gate: Function = lax.logistic,
    activation: Function = jnp.tanh,
) -> Float[Array, "B H"]:
    """Takes one step of a gated recurrent unit; returns the new h.

    The rows of the weights hold the gates r, z and n, in this order. With
    `a = weight_ih x + bias` and `b = weight_hh h`, computes
    `n = tanh(a_n + sigmoid(a_r + b_r) * (b_n + bias_n))` and
    `h' = n + sigmoid(a_z + b_z) * (h - n)`. Other functions may replace
    sigmoid, by `gate`, and tanh, by `activation`.

    References:
        Cho et al., "Learning Phrase Representations using RNN
        Encoder-Decoder", 2014, arXiv:1406.1078, in the form of
        `torch.nn.GRUCell`, which applies the reset gate after the product.
    """
    from_input = x @ weight_ih.T
    if bias is not None:
        from_input = from_input + bias
    a_r, a_z, a_n = jnp.split(from_input, 3, axis=-1)
    b_r, b_z, b_n = jnp.split(h @ weight_hh.T, 3, axis=-1)
    if bias_n is not None:
        b_n = b_n + bias_n
    n = activation(a_n + gate(a_r + b_r) * b_n)
    return n + gate(a_z + b_z) * (h - n)


def simple_cell(
    x: Float[Array, "B I"],
    h: Float[Array, "B H"],
    weight_ih: Float[Array, "H I"],
    weight_hh: Float[Array, "H H"],
    bias: Float[Array, " H"],
    *,
    residual: bool = False,
    activation: Function = jnp.tanh,
) -> Float[Array, "B H"]:
    """Computes `tanh(weight_ih x + bias + weight_hh h)`, the new h.

    With `residual`, h is added inside the tanh. Another function may replace
    it, by `activation`.

    References:
        Elman, "Finding Structure in Time", 1990; `flax.nnx.SimpleCell`.
    """
    new = x @ weight_ih.T + bias + h @ weight_hh.T
    return activation(new + h if residual else new)


def _gru(x: Array, h: Array, **params: Any) -> Carry:
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


# --- rows --------------------------------------------------------------------


def draw_small(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws small inputs, from N(0, 1/16).

    If a tanh saturates, its derivative 1 - tanh^2 is round-off.
    """
    return rng.normal(size=shape) / 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Cell(Layer):
    """The base of the rows that take one step."""

    family = "recurrent"

    input_size: int = 4
    hidden_size: int = 3

    @property
    def inputs(self) -> tuple[Shaped, ...]:
        return Shaped((self.input_size,)), Shaped((self.hidden_size,))

    def draw(self, rng, batch_size):
        return tuple(
            draw_small(rng, (batch_size, *shaped.shape))
            for shaped in self.inputs
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LSTMCell(_Cell):
    """Takes one step of a long short-term memory, from (h, c) to (h', c')."""

    name = "lstm_cell"

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
    """Takes the same step, with one matrix product for all four gates."""

    name = "optimized_lstm_cell"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GRUCell(_Cell):
    """Takes one step of a gated recurrent unit, from h to h'."""

    name = "gru_cell"

    use_bias: bool = True

    def variables(self):
        return cell_variables(
            "gru", self.input_size, self.hidden_size, bias=self.use_bias
        )

    def forward(self, params, buffers, x, h, *, key, training):
        return gru_cell(x, h, **params), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimpleCell(_Cell):
    """Takes one step of a plain recurrent network, from h to h'."""

    name = "simple_cell"

    residual: bool = False

    def variables(self):
        return cell_variables("simple", self.input_size, self.hidden_size)

    def forward(self, params, buffers, x, h, *, key, training):
        return simple_cell(x, h, **params, residual=self.residual), {}
