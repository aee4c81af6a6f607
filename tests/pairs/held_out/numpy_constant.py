"""GRUs over positions from a table that NumPy reads; held out from tuning.

The left model calls NumPy on an array in a field, so that this array can only
be a constant. Its recurrent cell is `eqx.nn.GRUCell`; the right model has a
cell with one array for each gate, and runs in the other direction too.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Layout, Slice, Transpose
from tests.pairs.bank import Fault, Pair, Sources, linear

WIDTH, HIDDEN, LENGTH, CLASSES = 4, 3, 4, 2


class Bidirectional(eqx.Module):
    positions: jax.Array
    forward: eqx.nn.GRUCell
    backward: eqx.nn.GRUCell
    score: eqx.nn.Linear

    def __init__(self, key):
        k1, k2, k3 = jr.split(key, 3)
        rates = np.arange(1, WIDTH + 1) / WIDTH
        self.positions = jnp.sin(np.outer(np.arange(LENGTH), rates))
        self.forward = eqx.nn.GRUCell(WIDTH, HIDDEN, key=k1)
        self.backward = eqx.nn.GRUCell(WIDTH, HIDDEN, key=k2)
        self.score = eqx.nn.Linear(2 * HIDDEN, CLASSES, key=k3)

    def __call__(self, xs):
        xs = xs + np.asarray(self.positions)

        def run(cell, xs):
            def step(h, x):
                h = cell(x, h)
                return h, h

            return jax.lax.scan(step, jnp.zeros(HIDDEN), xs)[1]

        ahead = run(self.forward, xs)
        back = run(self.backward, xs[::-1])[::-1]
        states = jnp.concatenate([ahead, back], axis=-1)
        return jax.vmap(self.score)(states)


class GatedUnit(nnx.Module):
    def __init__(self, rngs):
        def dense(n_in, bias):
            return nnx.Linear(n_in, HIDDEN, use_bias=bias, rngs=rngs)

        self.update_x = dense(WIDTH, True)
        self.update_h = dense(HIDDEN, False)
        self.reset_x = dense(WIDTH, True)
        self.reset_h = dense(HIDDEN, False)
        self.new_x = dense(WIDTH, True)
        self.new_h = dense(HIDDEN, True)

    def __call__(self, h, x):
        z = nnx.sigmoid(self.update_x(x) + self.update_h(h))
        r = nnx.sigmoid(self.reset_x(x) + self.reset_h(h))
        n = nnx.tanh(self.new_x(x) + r * self.new_h(h))
        return n + z * (h - n)


class Tagger(nnx.Module):
    def __init__(self, *, rngs):
        self.right_to_left = GatedUnit(rngs)
        self.left_to_right = GatedUnit(rngs)
        self.tags = nnx.Linear(2 * HIDDEN, CLASSES, rngs=rngs)

    def __call__(self, x):
        time = jnp.arange(x.shape[1])[:, None]
        rate = jnp.linspace(0, 1, x.shape[-1] + 1)[1:]
        x = x + jnp.sin(time * rate)
        h = g = jnp.zeros((x.shape[0], HIDDEN))
        first, second = [], []
        for t in range(x.shape[1]):
            h = self.left_to_right(h, x[:, t])
            g = self.right_to_left(g, x[:, -1 - t])
            first.append(h)
            second.insert(0, g)
        both = [jnp.stack(first, 1), jnp.stack(second, 1)]
        return self.tags(jnp.concatenate(both, axis=-1))


def left():
    return Bidirectional(jr.key(0))


def right():
    return Tagger(rngs=nnx.Rngs(1))


def inputs():
    return np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH))


def truth(take: Sources) -> dict[str, Layout]:
    made = linear(take, "score", "tags")
    for old, new in {
        "forward": "left_to_right",
        "backward": "right_to_left",
    }.items():
        for i, gate in enumerate(("reset", "update", "new")):
            piece = Slice(0, i * HIDDEN, (i + 1) * HIDDEN)
            for name in ("x", "h"):
                made[f"{new}.{gate}_{name}.kernel"] = take(
                    f"{old}.weight_{'i' if name == 'x' else 'h'}h"
                ).then(piece, Transpose((1, 0)))
            made[f"{new}.{gate}_x.bias"] = take(f"{old}.bias").then(piece)
        made[f"{new}.new_h.bias"] = take(f"{old}.bias_n")
    return made


PAIRS = (
    Pair(
        "recurrent cells after a table that NumPy reads",
        __name__,
        left,
        right,
        inputs,
        truth,
        left_only=("positions",),
        faults=(
            Fault(
                "gate on the other state",
                "right",
                "return n + z * (h - n)",
                "return h + z * (n - h)",
            ),
            Fault(
                "reset before the product",
                "right",
                "n = nnx.tanh(self.new_x(x) + r * self.new_h(h))",
                "n = nnx.tanh(self.new_x(x) + self.new_h(r * h))",
            ),
            Fault(
                "states in reversed order",
                "left",
                "back = run(self.backward, xs[::-1])[::-1]",
                "back = run(self.backward, xs[::-1])",
                line="jnp.concatenate([ahead, back], axis=-1)",
            ),
            Fault(
                "cosine instead of sine",
                "right",
                "x = x + jnp.sin(time * rate)",
                "x = x + jnp.cos(time * rate)",
            ),
        ),
    ),
)
