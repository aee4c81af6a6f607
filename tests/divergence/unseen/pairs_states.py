"""Audio frames through convolutions, a state space and a gated recurrence.

The Equinox side scans over time with one sequence. The right side takes a
batch, computes the states of all times by an associative scan, and unrolls
the recurrence. Both cast to bfloat16 before the last projection of a block.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from tests.divergence.mutations.pair import KEY, Case, Pair, filled, normal

FRAMES, CHANNELS, WIDTH, STATE = 9, 3, 4, 3
KERNEL, CLASSES, BATCH = 3, 5, 2
EPS = 1e-5


# --- Equinox: one sequence --------------------------------------------------


class GatedConv(eqx.Module):
    conv: eqx.nn.Conv1d

    def __init__(self):
        self.conv = eqx.nn.Conv1d(
            CHANNELS, 2 * WIDTH, KERNEL, padding=1, key=KEY
        )

    def __call__(self, x):
        y = self.conv(x.T)
        value, gate = jnp.split(y, 2)
        return (value * jax.nn.sigmoid(gate)).T


class StateSpace(eqx.Module):
    scale: jax.Array
    shift: jax.Array
    inner: eqx.nn.Linear
    conv: eqx.nn.Conv1d
    select: eqx.nn.Linear
    rate: eqx.nn.Linear
    decay: jax.Array
    skip: jax.Array
    outer: eqx.nn.Linear

    def __init__(self):
        self.scale = jnp.zeros(WIDTH)
        self.shift = jnp.zeros(WIDTH)
        self.inner = eqx.nn.Linear(WIDTH, 2 * WIDTH, use_bias=False, key=KEY)
        self.conv = eqx.nn.Conv1d(
            WIDTH, WIDTH, KERNEL, groups=WIDTH, padding="VALID", key=KEY
        )
        self.select = eqx.nn.Linear(WIDTH, 2 * STATE, key=KEY)
        self.rate = eqx.nn.Linear(WIDTH, WIDTH, key=KEY)
        self.decay = jnp.zeros((WIDTH, STATE))
        self.skip = jnp.zeros(WIDTH)
        self.outer = eqx.nn.Linear(WIDTH, WIDTH, key=KEY)

    def norm(self, x):
        x = x.astype("float32")
        mean = jnp.mean(x, -1, keepdims=True)
        var = jnp.mean(jnp.square(x - mean), -1, keepdims=True)
        # lacks: st_no_shift
        return (x - mean) * lax.rsqrt(var + EPS) * self.scale + self.shift

    def __call__(self, x):
        u, z = jnp.split(jax.vmap(self.inner)(self.norm(x)), 2, -1)
        padded = jnp.pad(u, ((KERNEL - 1, 0), (0, 0)))
        u = jax.nn.silu(self.conv(padded.T).T)  # lacks: st_conv_act
        b, c = jnp.split(jax.vmap(self.select)(u), 2, -1)
        rate = jax.nn.softplus(jax.vmap(self.rate)(u))
        decay = -jnp.exp(self.decay)

        def step(state, inputs):
            u, b, c, rate = inputs
            kept = jnp.exp(rate[:, None] * decay) * state
            state = (
                kept + (rate * u)[:, None] * b[None]
            )  # lacks: st_input_rate
            return state, state @ c

        start = jnp.zeros((WIDTH, STATE), u.dtype)
        _, y = lax.scan(step, start, (u, b, c, rate))
        y = y + u * self.skip  # lacks: st_no_skip
        y = (y * jax.nn.silu(z)).astype("bfloat16").astype("float32")
        return x + jax.vmap(self.outer)(y)


class Recurrence(eqx.Module):
    cell: eqx.nn.GRUCell

    def __init__(self):
        self.cell = eqx.nn.GRUCell(WIDTH, WIDTH, key=KEY)

    def __call__(self, x):
        def step(state, x):
            state = self.cell(x, state)
            return state, state

        return lax.scan(step, jnp.zeros(WIDTH, x.dtype), x)[1]


class Tagger(eqx.Module):
    front: GatedConv
    block: StateSpace
    back: Recurrence
    head: eqx.nn.Linear

    def __init__(self):
        self.front = GatedConv()
        self.block = StateSpace()
        self.back = Recurrence()
        self.head = eqx.nn.Linear(WIDTH, CLASSES, key=KEY)

    def __call__(self, x):
        x = self.block(self.front(x))
        y = self.back(x)
        pooled = jnp.mean(y, 0)
        return self.head(pooled)


# --- plain functions: a batch -----------------------------------------------


def gated_conv(layer, x, fault):
    padding = "VALID" if fault == "st_front_pad" else "SAME"
    if fault == "st_front_pad":
        # fault: st_front_pad
        x = jnp.pad(x, ((0, 0), (2, 0), (0, 0)))
    kernel = layer.weight.transpose(2, 1, 0)
    if fault == "st_front_flip":
        kernel = kernel[::-1]
    # fault: st_front_flip
    # consumer: st_front_pad
    y = lax.conv_general_dilated(
        x, kernel, (1,), padding, dimension_numbers=("NWC", "WIO", "NWC")
    )
    y = y + layer.bias[:, 0]
    if fault == "st_glu_halves":
        gate, value = jnp.split(y, 2, -1)  # fault: st_glu_halves
    else:
        value, gate = jnp.split(y, 2, -1)
    return value / (1 + jnp.exp(-gate))  # fault: st_glu_halves


def layer_norm(block, x, fault):
    x = jnp.asarray(x, jnp.float32)
    eps = 1e-3 if fault == "st_eps" else EPS
    mean = x.mean(-1, keepdims=True)
    square = (x * x).mean(-1, keepdims=True)
    # fault: st_eps
    x = (x - mean) / jnp.sqrt(square - mean * mean + eps)
    if fault == "st_no_shift":
        return x * block.scale
    return x * block.scale + block.shift


def causal_conv(conv, u, fault):
    """Adds shifted copies, weighted per channel."""
    total = conv.bias[:, 0]
    for i in range(KERNEL):
        shift = KERNEL - 1 - i
        if fault == "st_conv_flip":
            shift = i  # fault: st_conv_flip
        moved = jnp.pad(u, ((0, 0), (shift, 0), (0, 0)))[:, : u.shape[1]]
        if fault == "st_conv_future":
            # fault: st_conv_future
            moved = jnp.pad(u, ((0, 0), (0, shift), (0, 0)))[:, shift:]
        # consumer: st_conv_flip, st_conv_future
        total = total + moved * conv.weight[:, 0, i]
    return total


def affine(layer, x):
    return x @ layer.weight.T + layer.bias


def scan_states(decays, inputs):
    """Returns the states of all times of a diagonal linear recurrence."""

    def combine(first, second):
        return first[0] * second[0], second[0] * first[1] + second[1]

    return lax.associative_scan(combine, (decays, inputs), axis=1)[1]


def state_space(block, x, fault):
    y = layer_norm(block, x, fault) @ block.inner.weight.T
    u, gate = y[..., :WIDTH], y[..., WIDTH:]
    u = causal_conv(block.conv, u, fault)
    if fault != "st_conv_act":
        u = u * jax.nn.sigmoid(u)
    both = affine(block.select, u)  # consumer: st_conv_act
    b, c = both[..., :STATE], both[..., STATE:]
    if fault == "st_bc":
        b, c = c, b
    rate = affine(block.rate, u)  # consumer: st_conv_act
    # fault: st_rate
    rate = jnp.exp(rate) if fault == "st_rate" else jnp.logaddexp(rate, 0.0)
    if fault == "st_decay":
        speed = -jax.nn.softplus(block.decay)  # fault: st_decay
    else:
        speed = -jnp.exp(block.decay)
    decays = jnp.exp(rate[..., None] * speed)
    driven = u if fault == "st_input_rate" else rate * u
    # fault: st_bc
    # consumer: st_input_rate
    inputs = driven[..., None] * b[:, :, None, :]
    states = scan_states(decays, inputs)
    if fault == "st_half_states":
        # fault: st_half_states
        states = states.astype("bfloat16").astype("float32")
    y = jnp.einsum("btws,bts->btw", states, c)  # fault: st_bc
    if fault != "st_no_skip":
        y = y + block.skip * u
    act = jax.nn.sigmoid if fault == "st_gate_act" else jax.nn.silu
    # fault: st_gate_act
    # consumer: st_no_skip
    y = y * act(gate)
    y = y.astype(jnp.bfloat16).astype(jnp.float32)
    out = affine(block.outer, y)
    return out if fault == "st_residual" else x + out  # fault: st_residual


def gru(cell, x, fault):
    state = jnp.zeros((x.shape[0], WIDTH), x.dtype)
    times = range(x.shape[1])
    if fault == "st_backward":
        times = reversed(times)
    found = []
    for t in times:
        # fault: st_backward
        now = x[:, t] @ cell.weight_ih.T + cell.bias
        weight = cell.weight_hh
        r, z, n = jnp.split(now, 3, -1)
        wr, wz, wn = jnp.split(weight, 3)
        if fault == "st_gates":
            r, z, wr, wz = z, r, wz, wr
        reset = jax.nn.sigmoid(r + state @ wr.T)  # fault: st_gates
        update = jax.nn.sigmoid(z + state @ wz.T)  # fault: st_gates
        if fault == "st_reset":
            # fault: st_reset
            inner = (reset * state) @ wn.T + cell.bias_n
        elif fault == "st_inner_bias":
            # fault: st_inner_bias
            inner = reset * (state @ wn.T) + cell.bias_n
        else:
            inner = reset * (state @ wn.T + cell.bias_n)
        new = jnp.tanh(n + inner)
        if fault == "st_update":
            state = update * new + (1 - update) * state  # fault: st_update
        else:
            state = update * state + (1 - update) * new
        found.append(state)
    return jnp.stack(found, 1)


def right(model, x, fault):
    x = gated_conv(model.front.conv, x, fault)
    x = state_space(model.block, x, fault)
    y = gru(model.back.cell, x, fault)
    if fault == "st_last":
        return affine(model.head, y[:, -1])  # fault: st_last
    return affine(model.head, y.mean(1))


def states(rng, fault=""):
    left = jax.tree.map(
        lambda x: 0.4 * x if eqx.is_array(x) else x, filled(rng, Tagger())
    )
    x = normal(rng, BATCH, FRAMES, CHANNELS)
    return Case(
        lambda model, x: jax.vmap(model)(x),
        partial(right, fault=fault),
        (left, x),
    )


PAIRS = (
    Pair(
        states,
        (
            "st_front_pad",
            "st_front_flip",
            "st_glu_halves",
            "st_eps",
            "st_no_shift",
            "st_conv_flip",
            "st_conv_future",
            "st_conv_act",
            "st_bc",
            "st_rate",
            "st_decay",
            "st_input_rate",
            "st_half_states",
            "st_no_skip",
            "st_gate_act",
            "st_residual",
            "st_backward",
            "st_gates",
            "st_reset",
            "st_inner_bias",
            "st_update",
            "st_last",
        ),
    ),
)
