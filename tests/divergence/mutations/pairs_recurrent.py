"""Recurrent layers: scans against loops, fused gates against single ones."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from tests.divergence.mutations.pair import (
    KEY,
    RNGS,
    Case,
    Pair,
    filled,
    given,
    normal,
)

# --- a GRU: the library's cell in a scan against a loop ---------------------


def left_gru(cell, x):
    def step(h, x):
        # lacks: gru_frozen, gru_bias
        # consumer: gru_backwards
        h = cell(x, h)
        return h, h

    h = jnp.zeros(cell.hidden_size, x.dtype)
    return lax.scan(step, h, x)[1]


def right_gru(cell, x, fault):
    h = jnp.zeros((x.shape[0], cell.hidden_size), x.dtype)
    if fault == "gru_initial":
        h = jnp.ones_like(h)
    out = []
    for t in range(x.shape[1]):
        if fault == "gru_backwards":
            t = -1 - t
        # consumer: gru_backwards
        new = right_gru_step(cell, x[:, t], h, fault)
        out.append(new)
        if fault != "gru_frozen":
            h = new
    return jnp.stack(out, 1)


def right_gru_step(cell, x, h, fault):
    # consumer: gru_backwards
    i = x @ cell.weight_ih.T + cell.bias
    # consumer: gru_initial
    # fault: gru_frozen
    g = h @ cell.weight_hh.T
    ir, iz, ic = jnp.split(i, 3, -1)
    hr, hz, hc = jnp.split(g, 3, -1)
    if fault == "gru_swapped":
        ir, iz, hr, hz = iz, ir, hz, hr
    r = 1 / (1 + jnp.exp(-(ir + hr)))
    z = 1 / (1 + jnp.exp(-(iz + hz)))  # consumer: gru_swapped
    if fault != "gru_bias":
        hc = hc + cell.bias_n  # consumer: gru_swapped
    # fault: gru_bias
    # consumer: gru_swapped
    c = jnp.tanh(ic + r * hc)
    if fault == "gru_update":
        return z * c + (1 - z) * h  # fault: gru_update
    return z * h + (1 - z) * c


def gru(rng, fault=""):
    cell = filled(rng, eqx.nn.GRUCell(3, 4, key=KEY))
    return Case(
        jax.vmap(left_gru, (None, 0)),
        partial(right_gru, fault=fault),
        (cell, normal(rng, 2, 4, 3)),
    )


# --- an LSTM: the library's cell in a scan against nnx's --------------------


def left_lstm(cell, x):
    def step(state, x):
        state = cell(x, state)
        return state, state[0]

    zeros = jnp.zeros(cell.hidden_size, x.dtype)
    return lax.scan(step, (zeros, zeros), x)[1]


def right_cell(left, fault):
    order = {"lstm_swapped": (1, 0, 2, 3), "lstm_output": (0, 1, 3, 2)}
    gates = order.get(fault, (0, 1, 2, 3))
    cell = nnx.LSTMCell(3, 4, rngs=RNGS)
    weights = [
        jnp.split(weight, 4) for weight in (left.weight_ih, left.weight_hh)
    ]
    biases = jnp.split(left.bias, 4)
    if fault == "lstm_forget":
        biases[1] = biases[1] + 1
    for name, gate in zip("ifgo", gates, strict=True):
        inputs = nnx.Linear(
            3,
            4,
            use_bias=False,
            kernel_init=given(weights[0][gate].T),
            rngs=RNGS,
        )
        hidden = nnx.Linear(
            4,
            4,
            kernel_init=given(weights[1][gate].T),
            bias_init=given(biases[gate]),
            rngs=RNGS,
        )
        setattr(cell, "if_" if name == "f" else "i" + name, inputs)
        setattr(cell, "h" + name, hidden)
    if fault == "lstm_activation":
        cell.activation_fn = nnx.soft_sign
    return cell


def right_lstm(cell, x, fault):
    zeros = jnp.zeros((x.shape[0], 4), x.dtype)
    state, out = (zeros, zeros), []
    for t in range(x.shape[1]):
        now = x[:, t]
        # fault: lstm_swapped, lstm_output, lstm_forget, lstm_activation
        state, y = cell(state, now)
        if fault == "lstm_reset":
            state = (zeros, state[1])
        if fault == "lstm_carry":
            state = (state[1], state[0])
        out.append(y)
    return jnp.stack(out, 1)


def lstm(rng, fault=""):
    left = filled(rng, eqx.nn.LSTMCell(3, 4, key=KEY))
    x = normal(rng, 2, 3, 3)
    return Case(
        jax.vmap(left_lstm, (None, 0)),
        partial(right_lstm, fault=fault),
        (left, x),
        (right_cell(left, fault), x),
    )


# --- a linear recurrence: a scan against an associative one -----------------


def left_recurrence(w, x):
    rate = jax.nn.softplus(w["rate"])
    decay = jnp.exp(-rate * jnp.exp(w["log_a"]))

    def step(h, x):
        # lacks: ssm_unscaled
        # consumer: ssm_late
        h = decay * h + rate * (w["b"] @ x)
        return h, h

    hs = lax.scan(step, jnp.zeros_like(rate), x)[1]
    return hs @ w["c"].T + w["d"] * x


def right_recurrence(w, x, fault):
    rate = jnp.exp(w["rate"])  # fault: ssm_rate
    if fault != "ssm_rate":
        rate = jnp.log1p(rate)
    decay = -rate * jnp.exp(w["log_a"])
    if fault == "ssm_euler":
        decay = 1 + decay  # fault: ssm_euler
    else:
        decay = jnp.exp(decay)
    inputs = jnp.einsum("nti,hi->nth", x, w["b"])
    if fault != "ssm_unscaled":
        inputs = inputs * rate
    if fault == "ssm_late":
        inputs = jnp.roll(inputs, 1, 1)  # fault: ssm_late

    def combine(before, after):
        # consumer: ssm_late
        # fault: ssm_unscaled
        a, b = before[0] * after[0], before[1] * after[0]
        if fault == "ssm_order":
            b = before[1] + after[1] * after[0]  # fault: ssm_order
            return a, b
        # consumer: ssm_late
        return a, b + after[1]

    decays = jnp.broadcast_to(decay, inputs.shape)
    hs = lax.associative_scan(combine, (decays, inputs), axis=1)[1]
    y = hs @ w["c"].T
    if fault == "ssm_skip":
        return y + x  # fault: ssm_skip
    return y + w["d"] * x


def recurrence(rng, fault=""):
    weights = {
        "rate": normal(rng, 5),
        "log_a": normal(rng, 5),
        "b": normal(rng, 5, 3),
        "c": normal(rng, 3, 5),
        "d": normal(rng, 3),
    }
    return Case(
        jax.vmap(left_recurrence, (None, 0)),
        partial(right_recurrence, fault=fault),
        (weights, normal(rng, 2, 4, 3)),
    )


# --- both directions: a reversed scan against flips -------------------------


def left_both(w, x):
    def run(w, reverse):
        def step(h, x):
            h = jnp.tanh(w["x"] @ x + w["h"] @ h)
            return h, h

        return lax.scan(step, jnp.zeros(4, x.dtype), x, reverse=reverse)[1]

    return jnp.concatenate([run(w[0], False), run(w[1], True)], -1) @ w[2]


def right_both(w, x, fault):
    def run(w, x):
        projected = x @ w["x"].T
        h, out = jnp.zeros((x.shape[0], 4), x.dtype), []
        for t in range(x.shape[1]):
            # consumer: both_unreversed
            h = jnp.tanh(projected[:, t] + h @ w["h"].T)
            out.append(h)
        return jnp.stack(out, 1)

    forward = run(w[0], x)
    if fault == "both_unreversed":
        back = run(w[1], x)
    else:
        back = run(w[1], x[:, ::-1])  # fault: both_unflipped
        if fault != "both_unflipped":
            back = back[:, ::-1]
    parts = [back, forward] if fault == "both_order" else [forward, back]
    # fault: both_order
    # consumer: both_unflipped
    y = jnp.concatenate(parts, -1)
    return y @ w[2]  # consumer: both_order


def both(rng, fault=""):
    def cell():
        return {"x": normal(rng, 4, 3), "h": normal(rng, 4, 4)}

    return Case(
        jax.vmap(left_both, (None, 0)),
        partial(right_both, fault=fault),
        ((cell(), cell(), normal(rng, 8, 2)), normal(rng, 2, 3, 3)),
    )


PAIRS = (
    Pair(
        gru,
        (
            "gru_initial",
            "gru_backwards",
            "gru_frozen",
            "gru_swapped",
            "gru_bias",
            "gru_update",
        ),
    ),
    Pair(
        lstm,
        ("lstm_swapped", "lstm_output", "lstm_forget", "lstm_activation"),
        rewritten=False,
    ),
    Pair(
        recurrence,
        (
            "ssm_rate",
            "ssm_euler",
            "ssm_unscaled",
            "ssm_late",
            "ssm_order",
            "ssm_skip",
        ),
    ),
    Pair(both, ("both_unreversed", "both_unflipped", "both_order")),
)
