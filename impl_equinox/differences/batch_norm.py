"""Stock Equinox BatchNorm, whose default mode is `"ema"`."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from common.differences import RAISES, Family

family = Family("equinox", "batch_norm")


@family.known_difference(
    name="batch-norm-ema-train",
    layer="BatchNorm(mode='ema')",
    quantity="mean of the training output",
    what="In this mode, which is the default, training normalizes a batch by "
    "the running statistics, so a batch that differs from the earlier ones "
    "is neither centered nor scaled.",
    measured=4.95 / math.sqrt(1.08),
    origin="(5 - 0.05) / sqrt(0.99 * 1 + 0.01 * 9)",
    upstream="equinox #659",
    related=("equinox #675", "equinox #948"),
    ours='A spec names its batch-norm dialect. `"ema"` has this meaning in '
    'every backend, and `"standard"` and `"batch"` train on batch statistics.',
)
def batch_norm_ema_train() -> float:
    """Returns the mean of the training output for a second, shifted batch.

    A batch that is normalized by its own statistics has mean 0. This batch
    is normalized by the running statistics, which come from the first batch.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", mode="ema"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    x = jnp.array([[-1.0], [1.0]])  # mean 0, variance 1
    _, state = train(x, state)
    y, _ = train(3 * x + 5, state)
    return float(jnp.mean(y))


@family.known_difference(
    name="batch-norm-ema-shift",
    layer="BatchNorm(mode='ema')",
    quantity="derivative of the mean output with respect to a shift of the "
    "batch",
    what="With momentum m, only a fraction 1 - m of the gradient passes "
    "through the statistics, so the output still changes when the whole "
    "batch is shifted.",
    measured=0.99 / math.sqrt(1 + 1e-5),
    origin="m / sqrt(1 + eps), m = 0.99",
    upstream="equinox #659",
    related=("equinox #948",),
    ours='The dialect `"ema"` has this property in every backend. The '
    'dialects `"standard"` and `"batch"` do not have it.',
)
def batch_norm_ema_shift() -> float:
    """Returns the derivative of the mean output by a shift of the batch.

    The output of a layer that normalizes a batch by its own statistics does
    not depend on the shift.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", momentum=0.99, mode="ema"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    x = jnp.array([[-1.0], [1.0]])  # mean 0, variance 1
    _, state = train(x, state)

    def mean(shift):
        y, _ = train(x + shift, state)
        return jnp.mean(y)

    return float(jax.grad(mean)(0.0))


@family.known_difference(
    name="batch-norm-ema-untrained",
    layer="BatchNorm(mode='ema')",
    quantity="ratio of the output to the input at inference",
    what="The running variance is 0 before any training, so inference "
    "multiplies the input by 1 / sqrt(eps).",
    expected=1.0,
    measured=1 / math.sqrt(1e-5),
    origin="1 / sqrt(eps)",
    upstream="equinox #955",
    ours='The dialect `"ema"` behaves like this in every backend. The other '
    "dialects start from a running variance of 1.",
)
def batch_norm_ema_untrained() -> float:
    """Returns the output for an input of 1 at inference, before training.

    A layer that has seen no data should return its input, as it would with
    a running variance of 1. Here the running variance is 0.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", mode="ema"
    )
    y, _ = norm(jnp.ones(1), state, inference=True)
    return float(y[0])


@family.known_difference(
    name="batch-norm-batch-eval",
    layer="BatchNorm(mode='batch')",
    quantity="variance used at inference minus the variance of the data",
    what="The running variance starts at 1, but inference divides it by "
    "1 - m^k, which is the correction for a variance that starts at 0. After "
    "k steps with momentum m, the variance is too large by m^k / (1 - m^k).",
    measured=0.99**10 / (1 - 0.99**10),
    origin="m^k / (1 - m^k), m = 0.99, k = 10",
    related=("equinox #948", "equinox #955", "equinox #1010"),
    ours='The dialect `"batch"` behaves like this in every backend. The '
    'dialect `"standard"` does not divide the variance.',
)
def batch_norm_batch_eval() -> float:
    """Returns by how much the variance at inference exceeds the data's.

    The layer takes ten training steps on data of variance 1. Its running
    variance starts at 1, but inference corrects it as if it started at 0.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", momentum=0.99, mode="batch"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    x = jnp.array([[-1.0], [1.0]])  # mean 0, variance 1
    for _ in range(10):
        _, state = train(x, state)
    y, _ = norm(x[1], state, inference=True)
    return float(1 / y[0] ** 2 - norm.eps - 1)


@family.known_difference(
    name="batch-norm-doc-unbiased",
    layer="BatchNorm",
    quantity="unbiased variance of {0, 2} minus the stored variance",
    what="The documentation says that inference uses the unbiased variance, "
    "as PyTorch does, but the layer stores the biased variance.",
    measured=1.0,
    origin="2 - 1",
    ours="Every dialect stores the biased variance, so the two libraries "
    "agree.",
)
def batch_norm_doc_unbiased() -> float:
    """Returns the unbiased variance of {0, 2} minus the stored variance.

    The unbiased variance is 2 and the biased variance is 1. With momentum 0
    the layer stores only the statistics of the last batch.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", momentum=0.0, mode="batch"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    x = jnp.array([[0.0], [2.0]])
    _, state = train(x, state)
    index: Any = norm.batch_state_index
    _, running_var = state.get(index)
    return float(jnp.var(x, ddof=1) - running_var[0])


@family.known_difference(
    name="batch-norm-gradient",
    layer="BatchNorm",
    quantity="derivative of the running mean with respect to a shift of the "
    "batch",
    what="Gradients flow from one call to the next through the running "
    "statistics. NNX stops these gradients.",
    measured=0.1,
    origin="1 - m, m = 0.9",
    ours="A training step differentiates a single call, so this gradient does "
    "not arise. A loss over several calls needs its own `stop_gradient`.",
)
def batch_norm_gradient() -> float:
    """Returns the derivative of the running mean by a shift of the batch.

    `nnx.BatchNorm` stops this gradient, so there the derivative is 0.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", momentum=0.9, mode="batch"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    index: Any = norm.batch_state_index

    def running_mean(shift):
        _, new_state = train(jnp.array([[-1.0], [1.0]]) + shift, state)
        mean, _ = new_state.get(index)
        return mean[0]

    return float(jax.grad(running_mean)(0.0))


@family.known_difference(
    name="batch-norm-bfloat16",
    layer="BatchNorm",
    dtype="bfloat16",
    quantity="absolute error of a batch mean near 1",
    what="A float32 layer computes the statistics of a bfloat16 batch in "
    "bfloat16 and then stores them as float32.",
    measured=2**-8,
    origin="2^-8",
    related=("equinox #876",),
    ours="The layer table compares models of a single dtype. "
    "`impl_equinox.layers.BatchNorm` computes its statistics in at least "
    "float32.",
)
def batch_norm_bfloat16() -> float:
    """Returns the error of a float32 layer's mean of a bfloat16 batch.

    The mean of 1 and 1 + 2^-7 needs one more bit than a bfloat16 number has.
    With momentum 0 the layer stores the mean exactly as it computes it.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", momentum=0.0, mode="batch"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    x = jnp.array([[1.0], [1 + 2**-7]], jnp.bfloat16)
    _, state = train(x, state)
    index: Any = norm.batch_state_index
    mean, _ = state.get(index)
    return float(1 + 2**-8 - mean[0])


@family.known_difference(
    name="batch-norm-bfloat16-ema",
    layer="BatchNorm(mode='ema')",
    dtype="bfloat16",
    quantity=RAISES,
    what="A float32 layer cannot train on a bfloat16 batch. The error is "
    "`TypeError: lax.select requires arguments to have the same dtypes`.",
    measured=1.0,
    origin="1",
    related=("equinox #593",),
    ours="`impl_equinox.layers.BatchNorm` computes its statistics in at least "
    "float32, and `build(compute_dtype=...)` calls the layer in float32.",
)
def batch_norm_bfloat16_ema() -> float:
    """Returns 1 if a float32 layer cannot train on a bfloat16 batch."""
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", mode="ema"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    try:
        train(jnp.array([[-1.0], [1.0]], jnp.bfloat16), state)
    except TypeError:  # "lax.select requires ... the same dtypes"
        return 1.0
    return 0.0


@family.known_difference(
    name="batch-norm-bfloat16-stuck",
    layer="BatchNorm(dtype=bfloat16)",
    dtype="bfloat16",
    quantity="fraction of an update of the running variance that is lost",
    what="A bfloat16 layer keeps its running statistics in bfloat16, where "
    "rounding discards most of an update that is scaled by 1 - m = 0.01. NNX "
    "keeps the statistics in float32.",
    measured=1.0,
    origin="1",
    ours="`impl_equinox.layers.BatchNorm` keeps its statistics in at least "
    "float32.",
)
def batch_norm_bfloat16_stuck() -> float:
    """Returns the fraction of an update of the running variance that is lost.

    The running variance is 1, and that of the batch is 1.125^2. A hundredth
    of their difference is less than half of the last bit of 1, so every
    further step is lost in the same way.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", momentum=0.99, mode="batch", dtype=jnp.bfloat16
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    _, state = train(jnp.array([[-1.125], [1.125]], jnp.bfloat16), state)
    index: Any = norm.batch_state_index
    _, var = state.get(index)
    return float(1 - (var[0] - 1) / (0.01 * (1.125**2 - 1)))


@family.known_difference(
    name="batch-norm-axis-name",
    layer="BatchNorm",
    quantity=RAISES,
    what="`jax.jit` and `jax.device_put` reject the layer, because its "
    "`axis_name` is a string and a leaf of the pytree. The error is `The "
    "problematic value is of type <class 'str'>`.",
    measured=1.0,
    origin="1",
    upstream="equinox #1074",
    ours="The step of a `Trainer` takes only the leaves that are arrays and "
    "closes over the others.",
)
def batch_norm_axis_name() -> float:
    """Returns 1 if the layer cannot be an argument of `jax.jit`.

    The name of the axis is a leaf of the pytree but not an array. The layer
    is no valid argument of `jax.device_put` either. `eqx.filter_jit` accepts
    it, because it passes only the arrays to `jax.jit`.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", mode="batch"
    )
    evaluate = jax.jit(lambda norm, x: norm(x, state, inference=True)[0])
    try:
        evaluate(norm, jnp.ones(1))
    except TypeError:  # "The problematic value is of type <class 'str'>"
        return 1.0
    return 0.0


@family.known_difference(
    name="batch-norm-per-device",
    layer="BatchNorm",
    quantity="largest output for -1, 1, 9, 11 on two devices",
    what="Under a `vmap` or `shard_map` over devices whose axis is not in "
    "`axis_name`, the layer normalizes the examples of each device by their "
    "own statistics.",
    expected=6 / math.sqrt(26 + 1e-5),
    measured=1 / math.sqrt(1 + 1e-5),
    origin="1 / sqrt(1 + eps), and 6 / sqrt(26 + eps) for the whole batch",
    ours="A trainer on a mesh normalizes by the statistics of the whole "
    "batch. `build(sync_batch_norm=False)` chooses those of each device.",
)
def batch_norm_per_device() -> float:
    """Returns the largest output, where each group has its own statistics.

    Each of the two groups has variance 1, and the whole batch has 26.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", mode="batch"
    )
    train = jax.vmap(norm, axis_name="batch", in_axes=(0, None))
    groups = jnp.array([[[-1.0], [1.0]], [[9.0], [11.0]]])
    y, _ = jax.vmap(train, in_axes=(0, None))(groups, state)
    return float(jnp.max(y))


@family.known_difference(
    name="batch-norm-accumulate",
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
def batch_norm_accumulate() -> float:
    """Returns the running mean after the parts -1, 9 and 1, 11 of a batch.

    The parts have the means 4 and 6, and the whole batch has 5.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", mode="batch"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    for part in ([[-1.0], [9.0]], [[1.0], [11.0]]):
        _, state = train(jnp.array(part), state)
    index: Any = norm.batch_state_index
    mean, _ = state.get(index)
    return float(mean[0])
