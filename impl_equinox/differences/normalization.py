"""Stock Equinox RMSNorm and GroupNorm, which normalize one example."""

from typing import Any

import equinox as eqx

from common.differences import Family

family = Family("equinox", "normalization")


@family.known_difference(
    name="rms-norm-bias",
    layer="RMSNorm",
    quantity="number of biases per feature",
    what="The layer has a bias by default. The RMSNorm of the paper, of "
    "PyTorch, and of NNX has none.",
    measured=1.0,
    origin="1",
    ours="The layer table passes `use_bias` to both layers, and "
    "`impl_flax.layers.RMSNorm` supports a bias.",
)
def rms_norm_bias() -> float:
    """Returns the number of biases per feature, which is 0 in the paper."""
    bias: Any = eqx.nn.RMSNorm(4).bias
    return float(0 if bias is None else bias.size / 4)


@family.known_difference(
    name="group-norm-doc-shape",
    layer="GroupNorm",
    quantity="length of the weight divided by the documented length",
    what="The documentation says that the weight and the bias have one entry "
    "for each channel of a group, but they have one for each channel.",
    expected=1.0,
    measured=2.0,
    origin="the number of groups",
    ours="The weight of a `GroupNorm` has shape (channels,) in every backend.",
)
def group_norm_doc_shape() -> float:
    """Returns the length of the weight divided by the documented length.

    The documented shape is `(channels/groups,)`, and the actual shape is
    `(channels,)`.
    """
    weight: Any = eqx.nn.GroupNorm(groups=2, channels=8).weight
    return float(weight.size / (8 / 2))
