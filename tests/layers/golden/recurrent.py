"""Recurrent cells and layers in NumPy.

PyTorch: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTMCell and
    torch.nn.GRUCell.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.layers.golden.case import Case
from tests.layers.golden.linear import linear, of


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def lstm_cell(x, h, c, weight_ih, weight_hh, bias=None, **_):
    """c' = f c + i g and h' = o tanh(c'), with gates i, f, g, o."""
    gates = linear(x, weight_ih, bias) + linear(h, weight_hh)
    i, f, g, o = np.split(gates, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_cell(x, h, weight_ih, weight_hh, bias=None, bias_n=None, **_):
    """h' = (1 - z) n + z h, with gates r, z, n.

    n = tanh(W_in x + b_in + r (W_hn h + bias_n)). As in PyTorch, the reset
    gate is applied after the product.
    """
    of_x, of_h = linear(x, weight_ih, bias), linear(h, weight_hh)
    x_r, x_z, x_n = np.split(of_x, 3, axis=-1)
    h_r, h_z, h_n = np.split(of_h, 3, axis=-1)
    h_n = h_n if bias_n is None else h_n + bias_n
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = np.tanh(x_n + r * h_n)
    return (1 - z) * n + z * h


def simple_cell(x, h, weight_ih, weight_hh, bias, *, residual=False, **_):
    """h' = tanh(W_ih x + b + W_hh h); `residual` adds h inside the tanh."""
    inner = linear(x, weight_ih, bias) + linear(h, weight_hh)
    return np.tanh(inner + h if residual else inner)


CELLS = {"lstm": lstm_cell, "gru": gru_cell, "simple": simple_cell}


def reverse_parts(x, count):
    """Reverses the first elements and the others separately."""
    return np.concatenate([x[:count][::-1], x[count:][::-1]])


def run(cell, params, sequence, carry, count, *, reverse, keep_order):
    """Runs a cell along one sequence; entries after `count` are padding.

    Returns:
        The carry after `count` steps, and the hidden state of every step.
    """
    sequence = reverse_parts(sequence, count) if reverse else sequence
    states, after = [], []
    for x in sequence:
        new = CELLS[cell](x, *carry, **params)
        carry = new if isinstance(new, tuple) else (new,)
        states.append(carry[0])
        after.append(carry)
    states = np.stack(states)
    if reverse and keep_order:
        states = reverse_parts(states, count)
    return after[count - 1], states


def along(xs, given, params, *, cell, hidden_size, seq_lengths, **order):
    """Runs a cell along each sequence of a batch; the carry starts at zero."""
    counts, given = (given[0], given[1:]) if seq_lengths else (None, given)
    carries, states = [], []
    for b, sequence in enumerate(xs):
        carry = [part[b] for part in given] or [
            np.zeros(hidden_size) for _ in range(1 + (cell == "lstm"))
        ]
        count = len(sequence) if counts is None else int(counts[b])
        last, ys = run(cell, params, sequence, carry, count, **order)
        carries.append(last)
        states.append(ys)
    parts = zip(*carries, strict=True)
    return tuple(np.stack(part) for part in parts), np.stack(states)


def rnn(xs, *given, reverse, keep_order, return_carry, **rest):
    """The last carry, and the hidden states in the order of the steps."""
    fields = {key: rest[key] for key in ("cell", "hidden_size", "seq_lengths")}
    carry, ys = along(
        xs,
        given,
        of("cell", rest),
        **fields,
        reverse=reverse,
        keep_order=keep_order,
    )
    return (*carry, ys) if return_carry else ys


def bidirectional(xs, *given, return_carry, **rest):
    """Runs one cell forward and one backward; concatenates their states."""
    fields = {key: rest[key] for key in ("cell", "hidden_size", "seq_lengths")}
    lengths = given[: int(rest["seq_lengths"])]
    initial = given[len(lengths) :]
    half = len(initial) // 2
    ahead, right = along(
        xs, (*lengths, *initial[:half]), of("forward_rnn.cell", rest),
        **fields, reverse=False, keep_order=False,
    )  # fmt: skip
    behind, left = along(
        xs, (*lengths, *initial[half:]), of("backward_rnn.cell", rest),
        **fields, reverse=True, keep_order=True,
    )  # fmt: skip
    ys = np.concatenate([right, left], axis=-1)
    return (*ahead, *behind, ys) if return_carry else ys


# --- cases -------------------------------------------------------------------


GATES = {"lstm": 4, "gru": 3, "simple": 1}


def _cell(kind, inputs, hidden, bias=True, prefix=""):
    rows = GATES[kind] * hidden
    shapes: dict[str, Any] = {
        "weight_ih": (rows, inputs),
        "weight_hh": (rows, hidden),
    }
    if bias:
        shapes["bias"] = (rows,)
        if kind == "gru":
            shapes["bias_n"] = (hidden,)
    return {prefix + name: shape for name, shape in shapes.items()}


def _cells() -> Iterator[Case]:
    for layer, kind, option, value in (
        ("lstm_cell", "lstm", "use_bias", True),
        ("lstm_cell", "lstm", "use_bias", False),
        ("optimized_lstm_cell", "lstm", "use_bias", True),
        ("gru_cell", "gru", "use_bias", True),
        ("gru_cell", "gru", "use_bias", False),
        ("simple_cell", "simple", "residual", False),
        ("simple_cell", "simple", "residual", True),
    ):
        yield Case(
            layer=layer,
            fields={"input_size": 3, "hidden_size": 2, option: value},
            define=CELLS[kind],
            inputs=((3,), (2,), (2,))[: 3 if kind == "lstm" else 2],
            params=_cell(kind, 3, 2, value or kind == "simple"),
        )


def _sequences() -> Iterator[Case]:
    lengths = np.array([3, 1])
    for kind, reverse, keep, padded, given in (
        ("lstm", False, False, True, True),
        ("gru", True, True, True, False),
        ("simple", True, False, False, True),
    ):
        carry = ((2,),) * (1 + (kind == "lstm")) * given
        yield Case(
            layer="rnn",
            fields={
                "input_size": 2,
                "hidden_size": 2,
                "cell": kind,
                "reverse": reverse,
                "keep_order": keep,
                "return_carry": True,
                "steps": 4,
                "seq_lengths": padded,
                "initial_carry": given,
            },
            define=rnn,
            inputs=((4, 2), *((lengths,) * padded), *carry),
            params=_cell(kind, 2, 2, prefix="cell."),
        )
    for kind, padded, given in (("lstm", True, True),):
        carry = ((2,),) * (1 + (kind == "lstm")) * given
        yield Case(
            layer="bidirectional",
            fields={
                "input_size": 2,
                "hidden_size": 2,
                "cell": kind,
                "return_carry": True,
                "steps": 3,
                "seq_lengths": padded,
                "initial_carry": given,
            },
            define=bidirectional,
            inputs=((3, 2), *((lengths,) * padded), *carry, *carry),
            params={
                **_cell(kind, 2, 2, prefix="forward_rnn.cell."),
                **_cell(kind, 2, 2, prefix="backward_rnn.cell."),
            },
        )


def cases() -> Iterator[Case]:
    """Yields the cases of this family's rows."""
    yield from _cells()
    yield from _sequences()
