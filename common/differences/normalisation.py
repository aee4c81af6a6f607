"""Layer, RMS and group normalisation."""

import math

from common.differences.row import Difference

ROWS = (
    Difference(
        name="rms-norm-bias",
        family="normalisation",
        layer="RMSNorm",
        backend="equinox",
        quantity="biases per feature",
        what="It has a bias by default, which neither the paper's nor "
        "PyTorch's nor NNX's has.",
        measured=1.0,
        origin="1",
        ours="The layer table passes use_bias to both; the own NNX RMSNorm "
        "has a bias too.",
    ),
    Difference(
        name="group-norm-doc-shape",
        family="normalisation",
        layer="GroupNorm",
        backend="equinox",
        quantity="length of the weight over the documented",
        what="The documentation says that weight and bias have one entry "
        "per channel of a group; they have one per channel.",
        expected=1.0,
        measured=2.0,
        origin="groups",
        ours="A GroupNorm's weight is (channels,) in every backend.",
    ),
    Difference(
        name="layer-norm-mean-1e4",
        family="normalisation",
        layer="LayerNorm",
        backend="flax",
        quantity="output that should be 1",
        what="By default the variance is E[x^2] - E[x]^2. Where the mean "
        "is 1e4 times the deviation, float32 rounds it to 0, and the "
        "output is 1 / sqrt(eps) times too large. The norms that attention "
        "applies to query and key do the same.",
        expected=1.0,
        measured=1 / math.sqrt(1e-6),
        origin="1 / sqrt(eps)",
        ours="The layer table passes use_fast_variance=False.",
    ),
    Difference(
        name="group-norm-mean-1e4",
        family="normalisation",
        layer="GroupNorm",
        backend="flax",
        quantity="output that should be 1",
        what="As layer-norm-mean-1e4; InstanceNorm does the same.",
        expected=1.0,
        measured=1 / math.sqrt(1e-6),
        origin="1 / sqrt(eps)",
        ours="The layer table passes use_fast_variance=False.",
    ),
    Difference(
        name="layer-norm-eps",
        family="normalisation",
        layer="LayerNorm",
        backend="flax",
        quantity="output for features -1e-3 and 1e-3",
        what="eps is 1e-6 by default, in RMSNorm and GroupNorm too; it is "
        "1e-5 in Equinox and PyTorch, as in nnx.BatchNorm. Inputs near "
        "1e-3 come out more than twice as large.",
        expected=1 / math.sqrt(11),
        measured=1 / math.sqrt(2),
        origin="1e-3 / sqrt(1e-6 + eps)",
        ours="The layer table passes eps to both.",
    ),
    Difference(
        name="layer-norm-bfloat16",
        family="normalisation",
        layer="LayerNorm",
        backend="flax",
        dtype="bfloat16",
        quantity="bytes of an output element",
        what="float32 parameters promote a bfloat16 input to float32, in "
        "RMSNorm, GroupNorm and BatchNorm too. Equinox returns the input's "
        "dtype, except from BatchNorm.",
        expected=2.0,
        measured=4.0,
        origin="4",
        ours="The layer table pairs models of one dtype.",
    ),
    Difference(
        name="group-norm-reduction-axes",
        family="normalisation",
        layer="GroupNorm",
        backend="flax",
        quantity="output that should be 1",
        what="With reduction_axes that leave an axis between batch and "
        "channels, the statistics of groups are repeated along that axis "
        "and so meet the wrong channels.",
        expected=1.0,
        measured=1 / 3,
        origin="1 / 3, the deviation of the other group",
        ours="The layer table leaves reduction_axes alone.",
    ),
)
