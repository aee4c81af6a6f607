"""What the arrays of each type of Flax layer are called, and their layout.

A layer without a rule keeps its attributes' names and its axis order. Most
layers of `nnx` have a rule, since their names or axis order are not PyTorch's.
"""

import math
from typing import Any

from flax import nnx

from common.layouts import (
    Flip,
    Leaf,
    Part,
    Reshape,
    Rule,
    Shape,
    Step,
    Transpose,
    lift,
    of_one_layer,
)
from common.layouts.rules import find_leaf
from impl_flax import layers
from impl_flax.models.deep_mlp import DeepMLP


def matrix(layer: Any, shape: Shape) -> tuple[Step, ...]:
    """(in, out) to (out, in)."""
    del layer
    return lift(shape, 2, Transpose((1, 0)))


def _reversed_kernel(rank: int) -> Transpose:
    """(*kernel, in, out) to (out, in, *kernel)."""
    return Transpose((rank - 1, rank - 2, *range(rank - 2)))


def kernel(layer: Any, shape: Shape) -> tuple[Step, ...]:
    """(*kernel, in, out) to (out, in, *kernel)."""
    rank = len(layer.kernel_size) + 2
    return lift(shape, rank, _reversed_kernel(rank))


def transposed_kernel(layer: Any, shape: Shape) -> tuple[Step, ...]:
    """(*kernel, in/g, out) to (in, out/g, *kernel), flipped.

    With `transpose_kernel` it is (*kernel, out, in), and not flipped.
    """
    if getattr(layer, "transpose_kernel", False):
        return kernel(layer, shape)
    groups = getattr(layer, "feature_group_count", 1)
    rank = len(layer.kernel_size) + 2
    *sizes, inputs, outputs = of_one_layer(shape, rank)
    return lift(
        shape,
        rank,
        _reversed_kernel(rank),
        Reshape((groups, outputs // groups, inputs, *sizes)),
        Transpose((0, 2, 1, *range(3, rank + 1))),
        Reshape((groups * inputs, outputs // groups, *sizes)),
        Flip(tuple(range(2, rank))),
    )


def general_kernel(layer: Any, shape: Shape) -> tuple[Step, ...]:
    """(*groups, *in, *out) to (*groups, out, in), each of them one axis."""
    inputs, outputs = layer.in_features, layer.out_features
    rank = len(layer.batch_axis) + len(inputs) + len(outputs)
    groups = of_one_layer(shape, rank)[: len(layer.batch_axis)]
    flat = (*groups, math.prod(inputs), math.prod(outputs))
    *before, i, o = range(len(flat))
    return lift(shape, rank, Reshape(flat), Transpose((*before, o, i)))


def general_bias(layer: Any, shape: Shape) -> tuple[Step, ...]:
    """(*groups, *out) to (*groups, out), all outputs one axis."""
    outputs = layer.out_features
    rank = len(layer.batch_axis) + len(outputs)
    groups = of_one_layer(shape, rank)[: len(layer.batch_axis)]
    return lift(shape, rank, Reshape((*groups, math.prod(outputs))))


def projection_kernel(layer: Any, shape: Shape) -> tuple[Step, ...]:
    """(in, heads, size) to (heads * size, in).

    The output's is (heads, size, out), which leads to (out, heads * size).
    """
    inputs, outputs = layer.in_features, layer.out_features
    rank = len(inputs) + len(outputs)
    flat = Reshape((math.prod(inputs), math.prod(outputs)))
    return lift(shape, rank, flat, Transpose((1, 0)))


def projection_bias(layer: Any, shape: Shape) -> tuple[Step, ...]:
    """(heads, size) to (heads * size,)."""
    outputs = layer.out_features
    return lift(shape, len(outputs), Reshape((math.prod(outputs),)))


def length(layer: Any, shape: Shape) -> tuple[Step, ...]:
    """As the kernel that it scales, with axes of size 1."""
    leaf = find_leaf(RULES, layer.layer, "kernel")
    if leaf is None or leaf.layout is None:
        return ()
    return leaf.layout(layer.layer, shape)


INPUT = Part(renamed={"weight": "weight_ih"})
HIDDEN = Part(renamed={"weight": "weight_hh"})

# The gates of an LSTM cell, in the order of the rows of the joined arrays.
LSTM_PARTS = {
    name: Part(renamed=part.renamed, block=i)
    for part, names in (
        (INPUT, ("ii", "if_", "ig", "io")),
        (HIDDEN, ("hi", "hf", "hg", "ho")),
    )
    for i, name in enumerate(names)
}

PROJECTION = {"kernel": projection_kernel, "bias": projection_bias}
PROJECTIONS = {
    "query": Part("query_proj", layouts=PROJECTION),
    "key": Part("key_proj", layouts=PROJECTION),
    "value": Part("value_proj", layouts=PROJECTION),
    "out": Part("output_proj", layouts=PROJECTION),
}

SCALE = Leaf("weight")
STATISTICS = {
    "scale": SCALE,
    "mean": Leaf("running_mean"),
    "var": Leaf("running_var"),
}


def is_scanned(model: Any) -> bool:
    """Tells whether the blocks of a model are stacked."""
    return model.scan


RULES: dict[type, Rule] = {
    # models
    DeepMLP: Rule(parts={"blocks": Part("blocks", stacked=is_scanned)}),
    # linear
    nnx.Linear: Rule({"kernel": Leaf("weight", matrix)}),
    nnx.LinearGeneral: Rule(
        {
            "kernel": Leaf("weight", general_kernel),
            "bias": Leaf("bias", general_bias),
        }
    ),
    nnx.Einsum: Rule({"kernel": Leaf("weight")}),
    nnx.Embed: Rule({"embedding": Leaf("weight")}),
    # convolution
    nnx.Conv: Rule(
        {"kernel": Leaf("weight", kernel), "mask": Leaf("mask", kernel)}
    ),
    nnx.ConvTranspose: Rule(
        {
            "kernel": Leaf("weight", transposed_kernel),
            "mask": Leaf("mask", transposed_kernel),
        }
    ),
    layers.ConvTranspose: Rule(
        {
            "kernel": Leaf("weight", transposed_kernel),
            "mask": Leaf("mask", transposed_kernel),
        }
    ),
    # normalization
    nnx.BatchNorm: Rule(STATISTICS),
    layers.BatchNorm: Rule(
        {**STATISTICS, "count": Leaf("num_batches_tracked")}
    ),
    nnx.LayerNorm: Rule({"scale": SCALE}),
    nnx.RMSNorm: Rule({"scale": SCALE}),
    nnx.GroupNorm: Rule({"scale": SCALE}),
    nnx.InstanceNorm: Rule({"scale": SCALE}),
    layers.SpectralNorm: Rule(
        {"u": Leaf("weight_u"), "v": Leaf("weight_v")}, {"layer": Part()}
    ),
    layers.WeightNorm: Rule(
        {"scale": Leaf("weight_g", length)},
        {"layer": Part(renamed={"weight": "weight_v"})},
    ),
    # recurrent
    nnx.LSTMCell: Rule(parts=LSTM_PARTS),
    nnx.OptimizedLSTMCell: Rule(parts={"dense_i": INPUT, "dense_h": HIDDEN}),
    nnx.GRUCell: Rule(parts={"dense_i": INPUT, "dense_h": HIDDEN}),
    nnx.SimpleCell: Rule(parts={"dense_i": INPUT, "dense_h": HIDDEN}),
    # attention
    nnx.MultiHeadAttention: Rule(
        parts={
            **PROJECTIONS,
            "query_ln": Part("query_norm"),
            "key_ln": Part("key_norm"),
        }
    ),
    layers.MultiheadAttention: Rule(parts=PROJECTIONS),
}
