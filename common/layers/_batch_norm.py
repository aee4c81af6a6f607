"""Batch normalization and its four dialects."""

import dataclasses
import math
from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from common.layers._initial import constant, ones, zeros
from common.layers._layer import Layer, extent
from common.layers._normalization import (
    affine_variables,
    draw_mask,
    offset_along,
    standardize,
    statistics,
)
from common.protocol import Arrays, Shaped, Variable

BatchNormDialect = Literal["ema", "batch", "standard", "torch"]
BATCH_NORM_DIALECTS: tuple[str, ...] = get_args(BatchNormDialect)
MASKED_DIALECTS = ("standard", "torch")


def batch_norm_variables(
    features: int, dialect: BatchNormDialect, *, affine: bool = True
) -> dict[str, Variable]:
    """Returns the weight, the bias and the running statistics of a dialect."""
    variables = affine_variables((features,), weight=affine, bias=affine)
    variables["running_mean"] = Variable((features,), zeros, trainable=False)
    variables["running_var"] = Variable(
        (features,), zeros if dialect == "ema" else ones, trainable=False
    )
    if dialect == "ema":
        variables["first_time"] = Variable(
            (), constant(True, jnp.bool_), trainable=False
        )
    if dialect == "batch":
        variables["num_batches_tracked"] = Variable(
            (), constant(0, jnp.int32), trainable=False
        )
    return variables


def batch_norm(
    x: Float[Array, "B *S C"],
    weight: Float[Array, " C"] | None,
    bias: Float[Array, " C"] | None,
    running_mean: Float[Array, " C"],
    running_var: Float[Array, " C"],
    first_time: Bool[Array, ""] | None = None,
    num_batches_tracked: Int[Array, ""] | None = None,
    *,
    dialect: BatchNormDialect,
    momentum: float,
    eps: float,
    training: bool,
    mask: Bool[Array, "#B *#S #C"] | None = None,
) -> tuple[Float[Array, "B *S C"], Arrays]:
    """Normalizes each channel over the batch.

    Computes `(x - mean) / sqrt(var + eps) * weight + bias`. The dialects
    differ in the mean and variance that they use and store. Let (m, v) be the
    statistics of the batch, with the biased variance, and `a = momentum`.

    - `"standard"`: training uses (m, v), and updates the running statistics to
      `a * running + (1 - a) * (m, v)`. Inference uses the running statistics.
    - `"torch"`: like `"standard"`, but updates the running variance with the
      unbiased variance of n elements, `v * n / (n - 1)`.
    - `"batch"`: like `"standard"`, but inference divides the running
      statistics by `1 - a**num_batches_tracked`.
    - `"ema"`: training also uses the running statistics, after updating them.
      The first batch replaces their initial values.

    Elements excluded by a mask do not contribute to the statistics, but are
    normalized like the others. Statistics are computed in float32 or wider,
    and the normalized batch has the dtype of `x`.

    Returns:
        The normalized batch, and the updated buffers by leaf name.

    References:
        Ioffe and Szegedy, "Batch Normalization", 2015, arXiv:1502.03167.
        `"standard"` is `flax.nnx.BatchNorm`; `"torch"` is
        `torch.nn.BatchNorm2d`, but for the momentum, which is one minus
        PyTorch's; `"batch"` and `"ema"` are the modes of
        `equinox.nn.BatchNorm` (equinox #659).
    """
    if (dialect == "ema") != (first_time is not None) or (
        dialect == "batch"
    ) != (num_batches_tracked is not None):
        raise TypeError(
            f"batch_norm buffers: got first_time={first_time} and "
            f"num_batches_tracked={num_batches_tracked}, expected the buffers "
            f"of the dialect {dialect!r}. Pass those that "
            "`batch_norm_variables` returns for it."
        )
    mean, var = running_mean, running_var
    buffers = {}
    if training:
        axes = tuple(range(x.ndim - 1))
        mean, var = (jnp.squeeze(s, axes) for s in statistics(x, axes, mask))
        stored = var
        if dialect == "torch":
            counted = jnp.broadcast_to(True if mask is None else mask, x.shape)
            n = jnp.sum(counted, axes, dtype=var.dtype)
            stored = var * (n / jnp.maximum(n - 1, 1))
        running_mean = (1 - momentum) * mean + momentum * running_mean
        running_var = (1 - momentum) * stored + momentum * running_var
    if first_time is not None:
        if training:
            mean = running_mean = jnp.where(first_time, mean, running_mean)
            var = running_var = jnp.where(first_time, var, running_var)
            first_time = jnp.zeros_like(first_time)
        buffers["first_time"] = first_time
    if num_batches_tracked is not None:
        n = num_batches_tracked
        if not training:
            debias = 1 - jnp.asarray(momentum, running_var.dtype) ** n
            debias = jnp.where(n == 0, 1, debias)
            mean, var = mean / debias, var / debias
        buffers["num_batches_tracked"] = n + 1 if training else n
    buffers["running_mean"] = running_mean
    buffers["running_var"] = running_var
    y = standardize(x, mean, var, eps, weight, bias, mask)
    return y, buffers


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchNorm(Layer):
    """Normalizes each channel over the batch, in one of four dialects.

    With `masked`, a second input selects the positions that contribute to the
    statistics.
    """

    name = "batch_norm"
    family = "normalization"

    features: int = 3
    dialect: BatchNormDialect = "standard"
    momentum: float = 0.9
    eps: float = 1e-5
    channelwise_affine: bool = True
    masked: bool = False
    size: tuple[int, ...] = extent((2,))

    def __post_init__(self):
        if self.masked and self.dialect not in MASKED_DIALECTS:
            raise ValueError(
                f"masked batch_norm dialect: got {self.dialect!r}, expected "
                f"one of {', '.join(map(repr, MASKED_DIALECTS))}. The "
                "other dialects do not define a mask; use `masked=False`."
            )

    @property
    def inputs(self):
        mask = (Shaped((*self.size, 1), "bool"),) if self.masked else ()
        return (Shaped((*self.size, self.features)), *mask)

    def variables(self):
        return batch_norm_variables(
            self.features, self.dialect, affine=self.channelwise_affine
        )

    def draw(self, rng, batch_size):
        x = rng.normal(size=(batch_size, *self.size, self.features))
        if not self.masked:
            return (x,)
        shape = (batch_size, *self.size, 1)
        return x, draw_mask(rng, 1, math.prod(shape)).reshape(shape)

    def forward(self, params, buffers, x, mask=None, *, key, training):
        return batch_norm(
            x,
            params.get("weight"),
            params.get("bias"),
            **buffers,
            dialect=self.dialect,
            momentum=self.momentum,
            eps=self.eps,
            training=training,
            mask=mask,
        )

    def offset(self, x, mask=None):
        return offset_along(x, tuple(range(x.ndim - 1)), self.eps, mask)
