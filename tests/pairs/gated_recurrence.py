"""A character model with LSTM cells whose gates are in another order.

The left model scans an `eqx.nn.LSTMCell` (one fused array; i, f, g, o). The
right model has a cell of its own (one array for inputs and states; f, i, o,
g), written for a batch, and a dict of outputs.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Layout, Slice, Transpose
from tests.pairs.bank import Fault, Pair, Sources, concatenate

INPUTS, HIDDEN, LENGTH = 3, 4, 5


class Recurrent(eqx.Module):
    cell: eqx.nn.LSTMCell
    norm: eqx.nn.LayerNorm
    out: eqx.nn.Linear

    def __init__(self, key):
        k1, k2 = jr.split(key)
        self.cell = eqx.nn.LSTMCell(INPUTS, HIDDEN, key=k1)
        self.norm = eqx.nn.LayerNorm(HIDDEN)
        self.out = eqx.nn.Linear(HIDDEN, 2, key=k2)

    def __call__(self, xs):
        def step(carry, x):
            carry = self.cell(x, carry)
            return carry, carry[0]

        start = (jnp.zeros(HIDDEN), jnp.zeros(HIDDEN))
        (hidden, memory), states = jax.lax.scan(step, start, xs)
        logits = jax.vmap(lambda h: self.out(self.norm(h)))(states)
        return {"logits": logits, "memory": memory, "state": hidden}


class Cell(nnx.Module):
    def __init__(self, inputs, hidden, rngs):
        init = nnx.initializers.orthogonal()
        shape = (inputs + hidden, 4 * hidden)
        self.weight = nnx.Param(init(rngs.params(), shape))
        self.bias = nnx.Param(rngs.params.normal((4 * hidden,)))

    def __call__(self, x, h, c):
        z = jnp.concatenate([x, h], axis=-1) @ self.weight[...]
        f, i, o, g = jnp.split(z + self.bias[...], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return h, c


class CharModel(nnx.Module):
    def __init__(self, rngs):
        self.rnn = Cell(INPUTS, HIDDEN, rngs)
        self.ln_f = nnx.LayerNorm(HIDDEN, epsilon=1e-5, rngs=rngs)
        self.decoder = nnx.Linear(HIDDEN, 2, rngs=rngs)

    def __call__(self, sequence):
        h = jnp.zeros((sequence.shape[0], HIDDEN))
        c = jnp.zeros((sequence.shape[0], HIDDEN))
        steps = []
        for t in range(sequence.shape[1]):
            h, c = self.rnn(sequence[:, t], h, c)
            steps.append(h)
        hidden = self.ln_f(jnp.stack(steps, axis=1))
        return {"logits": self.decoder(hidden), "memory": c, "state": h}


def left():
    return Recurrent(jr.key(0))


def right():
    return CharModel(nnx.Rngs(1))


def inputs():
    return np.random.default_rng(0).normal(size=(2, LENGTH, INPUTS))


def reordered(x: Layout) -> Layout:
    """Takes i, f, g, o to f, i, o, g along the first axis."""
    gates = [
        x.then(Slice(0, j * HIDDEN, (j + 1) * HIDDEN)) for j in (1, 0, 3, 2)
    ]
    return concatenate(gates)


def truth(take: Sources) -> dict[str, Layout]:
    both = [
        reordered(take(f"cell.weight_{name}")).then(Transpose((1, 0)))
        for name in ("ih", "hh")
    ]
    return {
        "rnn.weight": concatenate(both),
        "rnn.bias": reordered(take("cell.bias")),
        "ln_f.scale": take("norm.weight"),
        "ln_f.bias": take("norm.bias"),
        "decoder.kernel": take("out.weight").then(Transpose((1, 0))),
        "decoder.bias": take("out.bias"),
    }


PAIRS = (
    Pair(
        "LSTM with gates in another order",
        __name__,
        left,
        right,
        inputs,
        truth,
        faults=(
            Fault(
                "no tanh of the memory",
                "right",
                "h = jax.nn.sigmoid(o) * jnp.tanh(c)",
                "h = jax.nn.sigmoid(o) * c",
            ),
            Fault(
                "two gates are one",
                "right",
                "jax.nn.sigmoid(i) * jnp.tanh(g)",
                "(1 - jax.nn.sigmoid(f)) * jnp.tanh(g)",
            ),
            Fault(
                "another activation",
                "right",
                "c = jax.nn.sigmoid(f) * c",
                "c = jax.nn.hard_sigmoid(f) * c",
            ),
            Fault(
                "eps",
                "right",
                "nnx.LayerNorm(HIDDEN, epsilon=1e-5, rngs=rngs)",
                "nnx.LayerNorm(HIDDEN, epsilon=1e-3, rngs=rngs)",
                line="self.ln_f(jnp.stack(steps, axis=1))",
            ),
            Fault(
                "starts from ones",
                "left",
                "start = (jnp.zeros(HIDDEN), jnp.zeros(HIDDEN))",
                "start = (jnp.zeros(HIDDEN), jnp.ones(HIDDEN))",
                line="carry = self.cell(x, carry)",
            ),
        ),
    ),
)
