"""Attention, rotary embeddings and recurrent cells."""

import math

import numpy as np

from common.differences.row import Difference

ROWS = (
    Difference(
        name="rope-theta",
        family="sequence",
        layer="RotaryPositionalEmbedding",
        backend="equinox",
        quantity="sine of an angle",
        what="Its angles are cached for the whole process by size and "
        "dtype, not by theta: a layer uses the theta of another of its "
        "size.",
        expected=math.sin(0.1),
        measured=math.sin(0.01),
        origin="sin(1 / sqrt(1e4)), not sin(1 / sqrt(1e2))",
        related=("equinox #568",),
        ours="Our own RotaryPositionalEmbedding has no cache.",
    ),
    Difference(
        name="attention-float64",
        family="sequence",
        layer="MultiHeadAttention",
        backend="flax",
        dtype="float64",
        quantity="error of a weight of 1/3",
        what="Without dropout the softmax is computed in float32, also in "
        "float64 models, as jax.nn's own attention does.",
        measured=float(np.float32(1 / 3)) - 1 / 3,
        origin="float32(1/3) - 1/3",
        ours="Our dot_product_attention is passed as attention_fn; its "
        "softmax is float64 where the input is.",
    ),
    Difference(
        name="attention-dropout",
        family="sequence",
        layer="MultiHeadAttention",
        backend="flax",
        quantity="share of weights dropped alike",
        what="broadcast_dropout is on by default: all examples and all "
        "heads share a mask. Equinox draws one for each, as does PyTorch.",
        expected=0.5,
        measured=1.0,
        origin="1",
        ours="Our dot_product_attention draws a mask for each example and "
        "head.",
    ),
    Difference(
        name="gru-bias",
        family="sequence",
        layer="GRUCell",
        backend="flax",
        quantity="biases for each hidden unit",
        what="The bias b_hn is in the documented formula, in PyTorch, "
        "Linen and Equinox, but not in the layer.",
        expected=4.0,
        measured=3.0,
        origin="3",
        upstream="flax #5594",
        related=("flax #5595",),
        ours="Our NNX GRUCell has it.",
    ),
    Difference(
        name="lstm-carry",
        family="sequence",
        layer="OptimizedLSTMCell",
        backend="flax",
        quantity="first array of the carry less h",
        what="The carry is (c, h), in LSTMCell too; in Equinox and PyTorch "
        "it is (h, c), and swapped arrays fit as well.",
        measured=0.5 - math.tanh(0.5) / 2,
        origin="1/2 - tanh(1/2) / 2",
        ours="The canonical order is (h, c); the layer table turns it round.",
    ),
    Difference(
        name="simple-cell-float64",
        family="sequence",
        layer="SimpleCell",
        backend="flax",
        dtype="float64",
        quantity="bytes of an output element",
        what="dtype is float32 by default, where other layers infer it: a "
        "float64 cell computes in float32.",
        expected=8.0,
        measured=4.0,
        origin="4",
        ours="The layer table passes dtype=None.",
    ),
    Difference(
        name="rnn-seq-lengths",
        family="sequence",
        layer="RNN",
        backend="flax",
        quantity="share of padded outputs that are not 0",
        what="seq_lengths picks the carry at a sequence's end; the outputs "
        "after it are those of the padding, where PyTorch's packed "
        "sequences give 0.",
        measured=1.0,
        origin="1",
        ours="All backends mean this; mask the outputs in the loss.",
    ),
)
