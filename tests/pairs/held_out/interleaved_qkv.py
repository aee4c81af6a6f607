"""A parallel transformer block with interleaved qkv; held out from tuning.

The rows of the left model's qkv array are ordered by head, then by query, key
and value. The right model has three layers. Attention and perceptron share
one norm and are added.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Index, Layout, Reshape, Transpose
from tests.pairs.bank import Fault, Pair, Sources, linear, norm

WIDTH, HEADS, SIZE, LENGTH = 6, 2, 3, 4


class NeoXBlock(eqx.Module):
    input_layernorm: eqx.nn.LayerNorm
    query_key_value: eqx.nn.Linear
    dense: eqx.nn.Linear
    dense_h_to_4h: eqx.nn.Linear
    dense_4h_to_h: eqx.nn.Linear
    bias: jax.Array

    def __init__(self, key):
        k1, k2, k3, k4 = jr.split(key, 4)
        self.input_layernorm = eqx.nn.LayerNorm(WIDTH)
        self.query_key_value = eqx.nn.Linear(WIDTH, 3 * WIDTH, key=k1)
        self.dense = eqx.nn.Linear(WIDTH, WIDTH, key=k2)
        self.dense_h_to_4h = eqx.nn.Linear(WIDTH, 4 * WIDTH, key=k3)
        self.dense_4h_to_h = eqx.nn.Linear(4 * WIDTH, WIDTH, key=k4)
        self.bias = jnp.zeros((HEADS, LENGTH, LENGTH))

    def __call__(self, x):
        y = jax.vmap(self.input_layernorm)(x)
        qkv = jax.vmap(self.query_key_value)(y)
        qkv = qkv.reshape(-1, HEADS, 3 * SIZE)
        q, k, v = jnp.split(qkv, 3, axis=-1)
        scores = jnp.einsum("qhd,khd->hqk", q, k) / SIZE**0.5
        weights = jax.nn.softmax(scores + self.bias, axis=-1)
        attended = jnp.einsum("hqk,khd->qhd", weights, v)
        attended = jax.vmap(self.dense)(attended.reshape(x.shape))
        hidden = jax.nn.gelu(jax.vmap(self.dense_h_to_4h)(y))
        return x + attended + jax.vmap(self.dense_4h_to_h)(hidden)


class MLP(nnx.Module):
    def __init__(self, rngs):
        self.c_fc = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.c_proj = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        return self.c_proj(nnx.gelu(self.c_fc(x)))


class ParallelBlock(nnx.Module):
    def __init__(self, rngs):
        self.projections = nnx.Dict(
            {name: nnx.Linear(WIDTH, WIDTH, rngs=rngs) for name in "qkvo"}
        )
        self.relative = nnx.Param(jnp.zeros((LENGTH, LENGTH, HEADS)))
        self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.mlp = MLP(rngs)

    def attend(self, y):
        q, k, v = (
            self.projections[name](y).reshape(*y.shape[:2], HEADS, SIZE)
            for name in "qkv"
        )
        logits = jnp.einsum("bqhd,bkhd->bqkh", q / jnp.sqrt(SIZE), k)
        probabilities = nnx.softmax(logits + self.relative[...], axis=2)
        mixed = jnp.einsum("bqkh,bkhd->bqhd", probabilities, v)
        return self.projections["o"](mixed.reshape(y.shape))

    def __call__(self, x):
        y = self.norm(x)
        return x + self.mlp(y) + self.attend(y)


def left():
    return NeoXBlock(jr.key(0))


def right():
    return ParallelBlock(nnx.Rngs(1))


def inputs():
    return np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH))


def truth(take: Sources) -> dict[str, Layout]:
    made = {"relative": take("bias").then(Transpose((1, 2, 0)))}
    made |= norm(take, "input_layernorm", "norm")
    made |= linear(take, "dense", "projections.o")
    made |= linear(take, "dense_h_to_4h", "mlp.c_fc")
    made |= linear(take, "dense_4h_to_h", "mlp.c_proj")
    for i, name in enumerate("qkv"):
        made[f"projections.{name}.kernel"] = take(
            "query_key_value.weight"
        ).then(
            Reshape((HEADS, 3, SIZE, WIDTH)),
            Index(1, i),
            Reshape((WIDTH, WIDTH)),
            Transpose((1, 0)),
        )
        made[f"projections.{name}.bias"] = take("query_key_value.bias").then(
            Reshape((HEADS, 3, SIZE)), Index(1, i), Reshape((WIDTH,))
        )
    return made


PAIRS = (
    Pair(
        "interleaved qkv in a parallel block",
        __name__,
        left,
        right,
        inputs,
        truth,
        free=("projections.k.bias",),
        faults=(
            Fault(
                "sequential instead of parallel",
                "right",
                "return x + self.mlp(y) + self.attend(y)",
                "return x + self.mlp(self.attend(y)) + self.attend(y)",
            ),
            Fault(
                "softmax over the heads",
                "right",
                "nnx.softmax(logits + self.relative[...], axis=2)",
                "nnx.softmax(logits + self.relative[...], axis=3)",
            ),
            Fault(
                "exact gelu",
                "left",
                "jax.nn.gelu(jax.vmap(self.dense_h_to_4h)(y))",
                "jax.nn.gelu(jax.vmap(self.dense_h_to_4h)(y), False)",
            ),
            Fault(
                "scale by the width",
                "left",
                'jnp.einsum("qhd,khd->hqk", q, k) / SIZE**0.5',
                'jnp.einsum("qhd,khd->hqk", q, k) / WIDTH**0.5',
            ),
        ),
    ),
)
