"""Stock NNX attention and recurrent cells on a batch of sequences."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.differences import Family

family = Family("flax", "sequence")


@family.known_difference(
    name="attention-float64",
    layer="MultiHeadAttention",
    dtype="float64",
    quantity="error of an attention weight of 1/3",
    what="Without dropout the layer computes the softmax in float32, even in "
    "a float64 model. The attention function of `jax.nn` does the same.",
    measured=float(np.float32(1 / 3)) - 1 / 3,
    origin="float32(1/3) - 1/3",
    ours="The layer table passes `impl_flax.layers.dot_product_attention` as "
    "`attention_fn`, which computes a float64 softmax for a float64 input.",
)
def attention_float64() -> float:
    """Returns the error of an attention weight of 1/3 in float64.

    There are three equal keys, and only the first has the value 1.
    """
    with jax.enable_x64(True):
        query, key = jnp.zeros((1, 1, 1, 1)), jnp.zeros((1, 3, 1, 1))
        value = jnp.array([1.0, 0.0, 0.0]).reshape(key.shape)
        y = nnx.dot_product_attention(query, key, value)
        return float(y[0, 0, 0, 0]) - 1 / 3


@family.known_difference(
    name="attention-dropout",
    layer="MultiHeadAttention",
    quantity="fraction of weights on which the masks of two heads agree",
    what="By default `broadcast_dropout` is True, so all examples and all "
    "heads share one mask. Equinox and PyTorch sample one mask for each "
    "example and head.",
    expected=0.5,
    measured=1.0,
    origin="1",
    ours="`impl_flax.layers.dot_product_attention` samples one mask for each "
    "example and head.",
)
def attention_dropout() -> float:
    """Returns the fraction of weights on which two masks agree.

    The masks belong to different heads of different examples. The value is
    the identity matrix, so the output equals the attention weights.
    """
    query = jnp.zeros((2, 256, 2, 1))  # (B, T, heads, K)
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


@family.known_difference(
    name="gru-bias",
    layer="GRUCell",
    quantity="number of biases per hidden unit",
    what="The layer has no bias b_hn. The formula in its documentation, "
    "PyTorch, Linen, and Equinox have one.",
    expected=4.0,
    measured=3.0,
    origin="3",
    upstream="flax #5594",
    related=("flax #5595",),
    ours="`impl_flax.layers.GRUCell` has this bias.",
)
def gru_bias() -> float:
    """Returns the number of biases per hidden unit."""
    cell = nnx.GRUCell(2, 4, rngs=nnx.Rngs(0))
    biases = nnx.state(cell, nnx.PathContains("bias"))
    return float(sum(bias.size for bias in jax.tree.leaves(biases)) / 4)


@family.known_difference(
    name="lstm-carry",
    layer="OptimizedLSTMCell",
    quantity="first array of the carry minus h",
    what="The carry is (c, h), as in `LSTMCell`. In Equinox and PyTorch it is "
    "(h, c), and both arrays have the same shape, so swapping them raises no "
    "error.",
    measured=0.5 - math.tanh(0.5) / 2,
    origin="1/2 - tanh(1/2) / 2",
    ours="The canonical order is (h, c), and the layer table swaps the two "
    "arrays for NNX.",
)
def lstm_carry() -> float:
    """Returns the first array of the carry minus the output h.

    All weights are 0 and c is 1, so the new c is 1/2 and the new h is
    tanh(1/2) / 2.
    """
    zeros = nnx.initializers.zeros
    cell = nnx.OptimizedLSTMCell(
        1, 1, kernel_init=zeros, recurrent_kernel_init=zeros, rngs=nnx.Rngs(0)
    )
    carry = jnp.ones((1, 1)), jnp.zeros((1, 1))
    (first, _), h = cell(carry, jnp.ones((1, 1)))
    return float(first[0, 0] - h[0, 0])


@family.known_difference(
    name="simple-cell-float64",
    layer="SimpleCell",
    dtype="float64",
    quantity="size of an output element, in bytes",
    what="The default `dtype` is float32, while other layers infer it, so a "
    "float64 cell computes in float32.",
    expected=8.0,
    measured=4.0,
    origin="4",
    ours="The layer table passes `dtype=None`.",
)
def simple_cell_float64() -> float:
    """Returns the size of an output element, in bytes of a float64 cell."""
    with jax.enable_x64(True):
        cell = nnx.SimpleCell(1, 1, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        _, y = cell(jnp.zeros((1, 1)), jnp.ones((1, 1)))
        return float(y.itemsize)


@family.known_difference(
    name="rnn-seq-lengths",
    layer="RNN",
    quantity="fraction of outputs after the end of a sequence that are not 0",
    what="`seq_lengths` selects the carry at the end of each sequence, but "
    "the later outputs are those of the padding. PyTorch's packed sequences "
    "give 0 there.",
    measured=1.0,
    origin="1",
    ours="The definition behaves the same way in every backend. Mask these "
    "outputs in the loss.",
)
def rnn_seq_lengths() -> float:
    """Returns the fraction of outputs after a sequence that are not 0."""
    rnn = nnx.RNN(nnx.GRUCell(2, 4, rngs=nnx.Rngs(0)))
    x = jnp.ones((1, 6, 2))
    y: Any = rnn(x, seq_lengths=jnp.array([3]))
    return float(jnp.mean(y[:, 3:] != 0))


@family.known_difference(
    name="rnn-length-zero",
    layer="RNN",
    quantity="number of steps behind the carry of an empty sequence",
    what="For a sequence length of 0 the layer returns the carry after all "
    "steps of the padding instead of the initial carry.",
    measured=3.0,
    origin="the number of steps of the padding",
    ours="The definition and `impl_equinox.layers.RNN` return the initial "
    "carry. The layer table draws lengths from 1.",
)
def rnn_length_zero() -> float:
    """Returns the number of steps that an empty sequence has taken.

    The cell adds 1 to its carry in each step, and there are 3 steps.
    """
    cell = nnx.SimpleCell(
        1, 1, activation_fn=lambda x: x + 1, rngs=nnx.Rngs(0)
    )
    cell.dense_i.kernel.set_value(jnp.zeros((1, 1)))
    cell.dense_h.kernel.set_value(jnp.ones((1, 1)))
    rnn = nnx.RNN(cell, return_carry=True, rngs=nnx.Rngs(0))
    carry, _ = rnn(jnp.ones((1, 3, 1)), seq_lengths=jnp.array([0]))
    return float(carry[0, 0])
