"""Batch normalisation."""

import math

from common.differences.row import RAISES, ROUNDING, Difference

ROWS = (
    Difference(
        name="batch-norm-ema-train",
        family="batch_norm",
        layer="BatchNorm(mode='ema')",
        backend="equinox",
        quantity="mean of a training output",
        what="In this mode, the default, training normalises by the running "
        "statistics, so a batch that is unlike those before comes out neither "
        "centred nor scaled.",
        measured=4.95 / math.sqrt(1.08),
        origin="(5 - 0.05) / sqrt(0.99 * 1 + 0.01 * 9)",
        upstream="equinox #659",
        related=("equinox #675", "equinox #948"),
        ours='A spec names its dialect: "ema" means this in every backend, '
        '"standard" and "batch" train on batch statistics.',
    ),
    Difference(
        name="batch-norm-ema-shift",
        family="batch_norm",
        layer="BatchNorm(mode='ema')",
        backend="equinox",
        quantity="slope of the output's mean by a shift",
        what="Only a share 1 - m of a gradient passes through the "
        "statistics, so the output still moves with a shift of its batch.",
        measured=0.99 / math.sqrt(1 + 1e-5),
        origin="m / sqrt(1 + eps), m = 0.99",
        upstream="equinox #659",
        related=("equinox #948",),
        ours='As above: "ema" means this in every backend, "standard" and '
        '"batch" do not.',
    ),
    Difference(
        name="batch-norm-ema-untrained",
        family="batch_norm",
        layer="BatchNorm(mode='ema')",
        backend="equinox",
        quantity="factor on an input at inference",
        what="Before any training the running variance is 0, so inference "
        "multiplies its input by 1 / sqrt(eps).",
        expected=1.0,
        measured=1 / math.sqrt(1e-5),
        origin="1 / sqrt(eps)",
        upstream="equinox #955",
        ours='The dialect "ema" means this in every backend; the others '
        "start from a variance of 1.",
    ),
    Difference(
        name="batch-norm-batch-eval",
        family="batch_norm",
        layer="BatchNorm(mode='batch')",
        backend="equinox",
        quantity="variance at inference beyond the data's",
        what="Inference divides a running variance that started at 1 by "
        "1 - m^k, as if it had started at 0: m^k / (1 - m^k) too much after "
        "k steps of momentum m.",
        measured=0.99**10 / (1 - 0.99**10),
        origin="m^k / (1 - m^k), m = 0.99, k = 10",
        related=("equinox #948", "equinox #955", "equinox #1010"),
        ours='The dialect "batch" means this in every backend; "standard" '
        "does not divide.",
    ),
    Difference(
        name="batch-norm-doc-unbiased",
        family="batch_norm",
        layer="BatchNorm",
        backend="equinox",
        quantity="stored variance of {0, 2} below the unbiased",
        what="The documentation promises the unbiased variance at inference, "
        "as in PyTorch; the biased one is stored.",
        measured=1.0,
        origin="2 - 1",
        ours="Every dialect stores the biased variance, so that both "
        "libraries agree.",
    ),
    Difference(
        name="batch-norm-gradient",
        family="batch_norm",
        layer="BatchNorm",
        backend="equinox",
        quantity="gradient of the running mean by a shift",
        what="Gradients flow from one call to the next through the running "
        "statistics, which NNX stops.",
        measured=0.1,
        origin="1 - m, m = 0.9",
        ours="A training step takes the gradient of a single call, so none "
        "flows here; a loss over several calls needs its own stop_gradient.",
    ),
    Difference(
        name="batch-norm-bfloat16",
        family="batch_norm",
        layer="BatchNorm",
        backend="equinox",
        dtype="bfloat16",
        quantity="error of a batch mean near 1",
        what="A float32 layer computes the statistics of a bfloat16 batch "
        "in bfloat16, and stores them as float32.",
        measured=2**-8,
        origin="2^-8",
        related=("equinox #876",),
        ours="The layer table pairs models of one dtype; the own BatchNorm "
        "computes statistics in float32 at least.",
    ),
    Difference(
        name="batch-norm-bfloat16-ema",
        family="batch_norm",
        layer="BatchNorm(mode='ema')",
        backend="equinox",
        dtype="bfloat16",
        quantity=RAISES,
        what="A float32 layer cannot train on a bfloat16 batch: "
        '"TypeError: lax.select requires arguments to have the same '
        'dtypes".',
        measured=1.0,
        origin="1",
        related=("equinox #593",),
        ours="The own BatchNorm computes statistics in float32 at least.",
    ),
    Difference(
        name="batch-norm-bfloat16-stuck",
        family="batch_norm",
        layer="BatchNorm(dtype=bfloat16)",
        backend="equinox",
        dtype="bfloat16",
        quantity="share of an update that is lost",
        what="A bfloat16 layer keeps its running statistics in bfloat16, "
        "in which an update by 1 - m = 0.01 is mostly rounded away. NNX "
        "keeps float32.",
        measured=1.0,
        origin="1",
        ours="The own BatchNorm keeps its statistics in float32 at least.",
    ),
    Difference(
        name="batch-norm-axis-name",
        family="batch_norm",
        layer="BatchNorm",
        backend="equinox",
        quantity=RAISES,
        what="jax.jit and jax.device_put refuse the layer, since axis_name "
        'is a leaf and a string: "The problematic value is of type <class '
        "'str'>\".",
        measured=1.0,
        origin="1",
        upstream="equinox #1074",
        ours="A Trainer's step takes the leaves that are arrays, and "
        "closes over the rest.",
    ),
    Difference(
        name="batch-norm-float64",
        family="batch_norm",
        layer="BatchNorm",
        backend="flax",
        dtype="float64",
        quantity="error of an evaluation",
        what="The running statistics are float32 whatever param_dtype says, "
        "so evaluation of a float64 model is good to 7 digits.",
        measured=6.705900368331186e-08,
        band=ROUNDING,
        ours="Building a model replaces the statistics by arrays of its own "
        "dtype.",
    ),
    Difference(
        name="batch-norm-mean-1e3",
        family="batch_norm",
        layer="BatchNorm",
        backend="flax",
        quantity="relative error of the batch variance",
        what="By default the variance is E[x^2] - E[x]^2, which cancels in "
        "float32 where the mean is 1e3 times the standard deviation.",
        measured=0.22437351942062378,
        band=ROUNDING,
        ours="Our models pass use_fast_variance=False.",
    ),
    Difference(
        name="batch-norm-mean-1e4",
        family="batch_norm",
        layer="BatchNorm",
        backend="flax",
        quantity="relative error of the batch variance",
        what="E[x^2] - E[x]^2 again, where the mean is 1e4 times the "
        "standard deviation: no digit is left, and half of the variances "
        "are clipped to 0.",
        measured=50.77238464355469,
        band=ROUNDING,
        ours="Our models pass use_fast_variance=False.",
    ),
    Difference(
        name="batch-norm-biased",
        family="batch_norm",
        layer="BatchNorm",
        backend="flax",
        quantity="stored variance of {0, 2} below the unbiased",
        what="The biased variance is stored for evaluation, where the paper "
        "(algorithm 2) and PyTorch use the unbiased one.",
        measured=1.0,
        origin="2 - 1",
        ours="Every dialect stores the biased variance, so that both "
        "libraries agree.",
    ),
)
