"""Stock NNX attention and recurrent cells, on a batch of sequences."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from flax import nnx


def attention_float64() -> float:
    """Returns the error of a weight of 1/3, in float64.

    Three equal keys, of which the first has the value 1.
    """
    with jax.enable_x64(True):
        query, key = jnp.zeros((1, 1, 1, 1)), jnp.zeros((1, 3, 1, 1))
        value = jnp.array([1.0, 0.0, 0.0]).reshape(key.shape)
        y = nnx.dot_product_attention(query, key, value)
        return float(y[0, 0, 0, 0]) - 1 / 3


def attention_dropout() -> float:
    """Returns the share of weights dropped alike in two examples and heads.

    By default. The value is the identity, so an output is its weights.
    """
    query = jnp.zeros((2, 256, 2, 1))  # (B, T, heads, size)
    value = jnp.broadcast_to(jnp.eye(256)[:, None], (2, 256, 2, 256))
    y = nnx.dot_product_attention(
        query,
        query,
        value,
        dropout_rng=jr.key(0),
        dropout_rate=0.5,
        deterministic=False,
    )
    dropped = y == 0
    return float(jnp.mean(dropped[0, :, 0] == dropped[1, :, 1]))


def gru_bias() -> float:
    """Returns the number of biases for each hidden unit."""
    cell = nnx.GRUCell(2, 4, rngs=nnx.Rngs(0))
    biases = nnx.state(cell, nnx.PathContains("bias"))
    return float(sum(it.size for it in jax.tree.leaves(biases)) / 4)


def lstm_carry() -> float:
    """Returns how far the first array of a carry is from the output h.

    All weights are 0, and c is 1: then c' is 1/2 and h' tanh(1/2) / 2.
    """
    zeros = nnx.initializers.zeros
    cell = nnx.OptimizedLSTMCell(
        1, 1, kernel_init=zeros, recurrent_kernel_init=zeros, rngs=nnx.Rngs(0)
    )
    carry = jnp.ones((1, 1)), jnp.zeros((1, 1))
    (first, _), h = cell(carry, jnp.ones((1, 1)))
    return float(first[0, 0] - h[0, 0])


def simple_cell_float64() -> float:
    """Returns the bytes of an output element, in a float64 cell."""
    with jax.enable_x64(True):
        cell = nnx.SimpleCell(1, 1, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        _, y = cell(jnp.zeros((1, 1)), jnp.ones((1, 1)))
        return float(y.itemsize)


def rnn_seq_lengths() -> float:
    """Returns the share of outputs after a sequence's end that are not 0."""
    rnn = nnx.RNN(nnx.GRUCell(2, 4, rngs=nnx.Rngs(0)))
    x = jnp.ones((1, 6, 2))
    y: Any = rnn(x, seq_lengths=jnp.array([3]))
    return float(jnp.mean(y[:, 3:] != 0))
