"""What the arrays of each type of Equinox layer are called, and their layout.

A layer without a rule keeps its attributes' names and its axis order, which
is PyTorch's in most layers of `equinox.nn`.
"""

from typing import Any

import equinox as eqx

from common.layouts import (
    Flip,
    Leaf,
    Part,
    Reshape,
    Rule,
    Shape,
    Step,
    Transpose,
    each,
    lift,
    of_one_layer,
)
from impl_equinox import layers
from impl_equinox.models.deep_mlp import DeepMLP


def convolution_bias(layer: Any, shape: Shape) -> tuple[Step, ...]:
    """(O, 1, ...), which broadcasts over an image, to (O,)."""
    rank = layer.num_spatial_dims + 1
    channels = of_one_layer(shape, rank)[:1]
    return lift(shape, rank, Reshape(channels))


def transposed_kernel(layer: Any, shape: Shape) -> tuple[Step, ...]:
    """(O, I/g, *kernel) to (I, O/g, *kernel), flipped."""
    rank = layer.num_spatial_dims + 2
    outputs, inputs, *kernel = of_one_layer(shape, rank)
    groups, axes = layer.groups, range(3, rank + 1)
    return lift(
        shape,
        rank,
        Reshape((groups, outputs // groups, inputs, *kernel)),
        Transpose((0, 2, 1, *axes)),
        Reshape((groups * inputs, outputs // groups, *kernel)),
        Flip(tuple(range(2, rank))),
    )


def slope(layer: Any, shape: Shape) -> tuple[Step, ...]:
    """(C, 1, ...), which broadcasts over an image, to (C,)."""
    del layer
    if any(size != 1 for size in shape[1:]):
        raise ValueError(
            f"PReLU negative_slope: got the shape {shape}, expected "
            "one slope, or one for each channel as (C, 1, ...). Other shapes "
            "have no common layout in the two libraries."
        )
    return (Reshape(shape[:1]),)


def scanned_layer(mlp: Any, index: int) -> str:
    """Numbers the layers of an MLP: with `scan`, all hidden ones are one."""
    if mlp.scan and mlp.depth > 0:
        return ("0", each(1), str(mlp.depth))[index]
    return str(index)


def is_scanned(model: Any) -> bool:
    """Tells whether the blocks of a model are stacked."""
    return model.scan


RULES: dict[type, Rule] = {
    # models
    DeepMLP: Rule(parts={"blocks": Part("blocks", stacked=is_scanned)}),
    # containers
    eqx.Partial: Rule(parts={"func": Part()}),
    eqx.nn.Shared: Rule(parts={"pytree": Part()}),
    eqx.nn.MLP: Rule(parts={"layers": Part("layers", item=scanned_layer)}),
    layers.LoRALinear: Rule(parts={"linear": Part()}),
    # convolution
    eqx.nn.Conv: Rule({"bias": Leaf("bias", convolution_bias)}),
    eqx.nn.ConvTranspose: Rule(
        {
            "weight": Leaf("weight", transposed_kernel),
            "bias": Leaf("bias", convolution_bias),
        }
    ),
    # normalization
    eqx.nn.BatchNorm: Rule(
        {
            "ema_first_time_index": Leaf("first_time"),
            "ema_state_index": Leaf(("running_mean", "running_var")),
            "batch_counter": Leaf("num_batches_tracked"),
            "batch_state_index": Leaf(("running_mean", "running_var")),
        }
    ),
    layers.BatchNorm: Rule(
        {"state_index": Leaf(("running_mean", "running_var"))}
    ),
    eqx.nn.SpectralNorm: Rule(
        {"uv_index": Leaf(("weight_u", "weight_v"))}, {"layer": Part()}
    ),
    eqx.nn.WeightNorm: Rule(
        {"g": Leaf("weight_g")},
        {"layer": Part(renamed={"weight": "weight_v"})},
    ),
    # activation
    eqx.nn.PReLU: Rule({"negative_slope": Leaf("negative_slope", slope)}),
}
