"""Stock `nnx.BatchNorm`, which normalizes a channels-last batch."""

import math
import warnings

import jax
import jax.numpy as jnp
import jax.random as jr
from flax import nnx

from common.differences import ROUNDING, Family

family = Family("flax", "batch_norm")


@family.known_difference(
    name="batch-norm-float64",
    layer="BatchNorm",
    dtype="float64",
    quantity="absolute error of the output at inference",
    what="The running statistics are float32 whatever `param_dtype` is, so a "
    "float64 model is accurate to only 7 digits at inference.",
    measured=6.705900368331186e-08,
    band=ROUNDING,
    ours="`build` replaces the statistics with arrays of the model's dtype.",
)
def batch_norm_float64() -> float:
    """Returns the error of the output of a float64 model at inference.

    With momentum 0 the output should equal the training output, but the
    layer stores the statistics in float32 in between. JAX warns about this
    cast.
    """
    with (
        jax.enable_x64(True),
        warnings.catch_warnings(action="ignore", category=FutureWarning),
    ):
        norm = nnx.BatchNorm(
            64, momentum=0.0, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
        )
        x = jr.normal(jr.key(0), (32, 64), jnp.float64)
        trained = norm(x)
        evaluated = norm(x, use_running_average=True)
        return float(jnp.max(jnp.abs(evaluated - trained)))


@family.known_difference(
    name="batch-norm-mean-1e3",
    layer="BatchNorm",
    quantity="maximum relative error of the batch variance",
    what="By default the layer computes the variance as `E[x^2] - E[x]^2`. "
    "In float32 this formula loses most of its digits to cancellation when "
    "the mean is 1e3 times the standard deviation.",
    measured=0.22437351942062378,
    band=ROUNDING,
    ours="Our models pass `use_fast_variance=False`.",
)
def batch_norm_mean_1e3() -> float:
    """Returns the maximum relative error of a variance for a mean of 1e3.

    The standard deviation of the data is 1. With momentum 0 the layer stores
    the variance exactly as it computes it, which is by default
    `E[x^2] - E[x]^2`.
    """
    x = 1e3 + jr.normal(jr.key(0), (512, 64))
    norm = nnx.BatchNorm(64, momentum=0.0, rngs=nnx.Rngs(0))
    norm(x)
    two_pass = jnp.mean(jnp.square(x - jnp.mean(x, 0)), 0)
    return float(jnp.max(jnp.abs(norm.var[...] / two_pass - 1)))


@family.known_difference(
    name="batch-norm-mean-1e4",
    layer="BatchNorm",
    quantity="maximum relative error of the batch variance",
    what="When the mean is 1e4 times the standard deviation, "
    "`E[x^2] - E[x]^2` has no correct digit left, and half of the variances "
    "are clipped to 0.",
    measured=50.77238464355469,
    band=ROUNDING,
    ours="Our models pass `use_fast_variance=False`.",
)
def batch_norm_mean_1e4() -> float:
    """Returns the maximum relative error of a variance for a mean of 1e4.

    The standard deviation of the data is 1. In half of the channels the
    variance is clipped to 0.
    """
    x = 1e4 + jr.normal(jr.key(0), (512, 64))
    norm = nnx.BatchNorm(64, momentum=0.0, rngs=nnx.Rngs(0))
    norm(x)
    two_pass = jnp.mean(jnp.square(x - jnp.mean(x, 0)), 0)
    return float(jnp.max(jnp.abs(norm.var[...] / two_pass - 1)))


@family.known_difference(
    name="batch-norm-biased",
    layer="BatchNorm",
    quantity="unbiased variance of {0, 2} minus the stored variance",
    what="The layer stores the biased variance for inference. The paper "
    "(algorithm 2) and PyTorch use the unbiased variance.",
    measured=1.0,
    origin="2 - 1",
    ours="Every dialect stores the biased variance, so the two libraries "
    "agree.",
)
def batch_norm_biased() -> float:
    """Returns the unbiased variance of {0, 2} minus the stored variance.

    The unbiased variance is 2 and the biased variance is 1. With momentum 0
    the layer stores only the statistics of the last batch.
    """
    norm = nnx.BatchNorm(1, momentum=0.0, rngs=nnx.Rngs(0))
    x = jnp.array([[0.0], [2.0]])
    norm(x)
    return float(jnp.var(x, ddof=1) - norm.var[0])


@family.known_difference(
    name="batch-norm-masked-nan",
    layer="BatchNorm",
    quantity="fraction of gradient elements that are NaN",
    what="A NaN at a position that the mask excludes makes every gradient of "
    "its channel NaN, as in `LayerNorm` (see layer-norm-masked-nan).",
    measured=1.0,
    origin="1",
    ours="The definition, `impl_equinox.layers.BatchNorm` and "
    "`impl_flax.layers.BatchNorm` do not differentiate such an element. The "
    "layer table draws finite inputs.",
)
def batch_norm_masked_nan() -> float:
    """Returns the fraction of gradients that are NaN.

    One of four examples is NaN. The mask excludes it, and the loss is the
    output of the first.
    """
    norm = nnx.BatchNorm(1, use_fast_variance=False, rngs=nnx.Rngs(0))
    x = jnp.array([[1.0], [2.0], [4.0], [jnp.nan]])
    mask = jnp.isfinite(x)

    def loss(norm, x):
        return norm(x, mask=mask)[0, 0]

    gradient = nnx.grad(loss, argnums=1)(norm, x)
    return float(jnp.mean(jnp.isnan(gradient)))


@family.known_difference(
    name="nnx-batch-norm-per-device",
    layer="BatchNorm",
    quantity="largest output for -1, 1, 9, 11 on two devices",
    what="Under a `vmap`, `pmap` or `shard_map` over devices without "
    "`axis_name`, the layer normalizes the examples of each device by their "
    "own statistics.",
    expected=6 / math.sqrt(26 + 1e-5),
    measured=1 / math.sqrt(1 + 1e-5),
    origin="1 / sqrt(1 + eps), and 6 / sqrt(26 + eps) for the whole batch",
    ours="A trainer on a mesh normalizes by the statistics of the whole "
    "batch. `build(sync_batch_norm=False)` chooses those of each device.",
)
def nnx_batch_norm_per_device() -> float:
    """Returns the largest output, where each group has its own statistics.

    Each of the two groups has variance 1, and the whole batch has 26.
    """
    norm = nnx.BatchNorm(1, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(norm)

    def train(x):
        return nnx.merge(graphdef, state, copy=True)(x)

    groups = jnp.array([[[-1.0], [1.0]], [[9.0], [11.0]]])
    return float(jnp.max(jax.vmap(train)(groups)))


@family.known_difference(
    name="nnx-batch-norm-accumulate",
    layer="BatchNorm",
    quantity="running mean of 5 after one step in two parts",
    what="With gradient accumulation each part of a batch is normalized by "
    "its own statistics and updates the running ones, which therefore move "
    "as many times per step as there are parts.",
    expected=0.01 * 5,
    measured=0.99 * 0.01 * 4 + 0.01 * 6,
    origin="0.99 * 0.01 * 4 + 0.01 * 6, and 0.01 * 5 for the whole batch",
    ours="`build(accumulate=K)` passes the running statistics from part to "
    "part. A model without batch statistics gives the numbers of the whole "
    "batch. With the K-th root of the momentum they move as far per step.",
)
def nnx_batch_norm_accumulate() -> float:
    """Returns the running mean after the parts -1, 9 and 1, 11 of a batch.

    The parts have the means 4 and 6, and the whole batch has 5.
    """
    norm = nnx.BatchNorm(1, rngs=nnx.Rngs(0))
    for part in ([[-1.0], [9.0]], [[1.0], [11.0]]):
        norm(jnp.array(part))
    return float(norm.mean[0])


@family.known_difference(
    name="nnx-batch-norm-bfloat16",
    layer="BatchNorm",
    dtype="bfloat16",
    quantity="an output at inference whose exact value is 3",
    what="With `dtype=bfloat16`, the layer rounds its running statistics, its "
    "scale and its bias to bfloat16 before it uses them, although they are "
    "stored in float32. `LayerNorm`, `GroupNorm`, `InstanceNorm` and "
    "`RMSNorm` round their scale and their bias.",
    expected=3.0,
    measured=4.0,
    origin="260 - 256, since bfloat16 rounds 257 to 256",
    ours="`build(compute_dtype=...)` and our models pass "
    "`promote_dtype=impl_flax.layers.keep_dtypes`.",
)
def nnx_batch_norm_bfloat16() -> float:
    """Returns the output for 260 with a running mean of 257.

    The running variance is 1. bfloat16 has 8 significant bits.
    """
    norm = nnx.BatchNorm(1, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    norm.mean.set_value(jnp.array([257.0]))
    x = jnp.array([[260.0]], jnp.bfloat16)
    return float(norm(x, use_running_average=True)[0, 0])
