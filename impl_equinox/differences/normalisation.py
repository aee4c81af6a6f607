"""Stock Equinox RMSNorm and GroupNorm, which normalise one example."""

from typing import Any

import equinox as eqx


def rms_norm_bias() -> float:
    """Returns how many biases a feature has; the paper's has none."""
    bias: Any = eqx.nn.RMSNorm(4).bias
    return float(0 if bias is None else bias.size / 4)


def group_norm_doc_shape() -> float:
    """Returns the length of the weight as a share of the documented.

    The documentation says `(channels/groups,)`; it is one per channel.
    """
    weight: Any = eqx.nn.GroupNorm(groups=2, channels=8).weight
    return float(weight.size / (8 / 2))
