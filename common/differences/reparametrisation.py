"""Spectral and weight normalisation."""

import math

from common.differences.row import RAISES, SEEDED, Difference

ROWS = (
    Difference(
        name="spectral-norm-zero",
        family="reparametrisation",
        layer="SpectralNorm",
        backend="equinox",
        quantity="share of outputs that are NaN",
        what="A weight of zeros is divided by a largest singular value of "
        "zero. NNX divides by 1 then.",
        measured=1.0,
        origin="1",
        ours="All backends mean this: a weight of zeros has no direction.",
    ),
    Difference(
        name="weight-norm-zero",
        family="reparametrisation",
        layer="WeightNorm",
        backend="equinox",
        quantity="share of outputs that are NaN",
        what="An output whose weights are all zero is NaN, as in PyTorch. "
        "NNX adds 1e-12 to the square of the norm, so gives 0.",
        measured=1.0,
        origin="1",
        ours="All backends mean this: a weight of zeros has no direction.",
    ),
    Difference(
        name="spectral-norm-eval",
        family="reparametrisation",
        layer="SpectralNorm",
        backend="flax",
        quantity="change of a kernel entry by an evaluation",
        what="Every call, also in evaluation, overwrites the wrapped Param "
        "with the normalised kernel.",
        measured=1.0,
        origin="2 - 2 / 2",
        upstream="flax #5576",
        ours="Our NNX SpectralNorm calls the layer through a copy that holds "
        "the divided kernel.",
    ),
    Difference(
        name="spectral-norm-training",
        family="reparametrisation",
        layer="SpectralNorm",
        backend="flax",
        quantity="share by which the loss is lower after 20 steps",
        what="Updates are added to the kernel that was divided, not to the "
        "one underneath as in the paper, so training takes larger steps.",
        measured=0.7422181367874146,
        band=SEEDED,
        upstream="flax #5576",
        ours="Our NNX SpectralNorm keeps the paper's rule.",
    ),
    Difference(
        name="spectral-norm-start",
        family="reparametrisation",
        layer="SpectralNorm",
        backend="flax",
        quantity="largest singular value after a call",
        what="The first call divides by an estimate after one power "
        "iteration from a random vector. Equinox runs 15 when it is made.",
        expected=1.0,
        measured=1.3240680694580078,
        band=SEEDED,
        ours="Our NNX SpectralNorm runs 15 iterations when it is made.",
    ),
    Difference(
        name="spectral-norm-bias",
        family="reparametrisation",
        layer="SpectralNorm",
        backend="flax",
        quantity="entry of a bias that was 2",
        what="It divides every Param of two axes or more, also the biases "
        "of a LinearGeneral and of attention.",
        expected=2.0,
        measured=1.0,
        origin="2 / 2",
        related=("flax #5576",),
        ours="Our NNX SpectralNorm divides the kernel only.",
    ),
    Difference(
        name="weight-norm-eval",
        family="reparametrisation",
        layer="WeightNorm",
        backend="flax",
        quantity="change of a kernel entry by an evaluation",
        what="Every call, also in evaluation, overwrites the wrapped Param "
        "with the normalised kernel.",
        measured=1.0,
        origin="2 - 2 / 2",
        upstream="flax #5576",
        ours="Our NNX WeightNorm calls the layer through a copy that holds "
        "the normalised kernel.",
    ),
    Difference(
        name="weight-norm-untrained",
        family="reparametrisation",
        layer="WeightNorm",
        backend="flax",
        quantity="trained arrays of a wrapped Linear",
        what="The scales are no nnx.Param: they get no gradient and no "
        "update, where the paper trains them.",
        expected=3.0,
        measured=2.0,
        origin="2",
        upstream="flax #5577",
        related=("flax #5579",),
        ours="Our NNX WeightNorm has a Param for the scale.",
    ),
    Difference(
        name="weight-norm-start",
        family="reparametrisation",
        layer="WeightNorm",
        backend="flax",
        quantity="factor on the wrapped layer's output",
        what="The scale starts at 1, not at the norm of the weight, so "
        "wrapping a trained layer changes its outputs.",
        expected=1.0,
        measured=0.2,
        origin="1 / 5, the norm of the weight",
        related=("flax #4138",),
        ours="Our NNX WeightNorm starts at the norm of the weight.",
    ),
    Difference(
        name="weight-norm-scale-init",
        family="reparametrisation",
        layer="WeightNorm",
        backend="flax",
        quantity=RAISES,
        what='A scale_init that draws raises "TypeError: unexpected PRNG '
        'key type": it is given a stream of keys in the place of a key.',
        measured=1.0,
        origin="1",
        related=("flax #5577",),
        ours="Our NNX WeightNorm has no such option.",
    ),
    Difference(
        name="weight-norm-small",
        family="reparametrisation",
        layer="WeightNorm",
        backend="flax",
        quantity="norm of a normalised column",
        what="1e-12 is added to the square of the norm, so a column of "
        "norm 1e-6 comes out too short.",
        expected=1.0,
        measured=1 / math.sqrt(2),
        origin="1e-6 / sqrt(1e-12 + 1e-12)",
        ours="Our NNX WeightNorm adds nothing.",
    ),
)
