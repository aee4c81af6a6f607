"""Batch normalisation in its dialects."""

import dataclasses
from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from common.layers._initial import constant, ones, zeros
from common.layers._layer import Layer, Side, extent
from common.protocol import Arrays, Shaped, Variable

BatchNormDialect = Literal["ema", "batch", "standard"]
BATCH_NORM_DIALECTS: tuple[str, ...] = get_args(BatchNormDialect)


def batch_norm_variables(
    features: int, dialect: BatchNormDialect
) -> dict[str, Variable]:
    """Weight, bias and the running statistics that the dialect keeps."""
    variables = {
        "weight": Variable((features,), ones),
        "bias": Variable((features,), zeros),
        "running_mean": Variable((features,), zeros, trainable=False),
        "running_var": Variable(
            (features,), zeros if dialect == "ema" else ones, trainable=False
        ),
    }
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
    weight: Float[Array, " C"],
    bias: Float[Array, " C"],
    running_mean: Float[Array, " C"],
    running_var: Float[Array, " C"],
    first_time: Bool[Array, ""] | None = None,
    num_batches_tracked: Int[Array, ""] | None = None,
    *,
    dialect: BatchNormDialect,
    momentum: float,
    eps: float,
    training: bool,
) -> tuple[Float[Array, "B *S C"], Arrays]:
    """Normalises each channel over the batch, in one of three dialects.

    With batch statistics (m, v), v biased, and `a = momentum`:

    - `"standard"`: training normalises by (m, v) and stores
      `a * running + (1 - a) * (m, v)`; inference uses what is stored.
    - `"batch"`: the same, but inference divides both stored values by
      `1 - a**num_batches_tracked`.
    - `"ema"`: training *normalises by the stored values*, updated first; the
      first batch is stored as it is.

    Returns:
        The normalised batch and the updated buffers, by leaf name.

    Reference: Ioffe and Szegedy, "Batch Normalization", 2015,
        arXiv:1502.03167. `"standard"` is `flax.nnx.BatchNorm`; `"batch"` and
        `"ema"` are the modes of `equinox.nn.BatchNorm` (equinox #659).
    """
    if (dialect == "ema") != (first_time is not None) or (
        dialect == "batch"
    ) != (num_batches_tracked is not None):
        raise TypeError(
            f"batch_norm buffers: got others than those of {dialect!r}, "
            "expected those of `batch_norm_variables`. Pass them."
        )
    mean, var = running_mean, running_var
    buffers = {}
    if training:
        axes = tuple(range(x.ndim - 1))
        mean = jnp.mean(x, axes)
        var = jnp.mean(jnp.square(x - mean), axes)
        running_mean = (1 - momentum) * mean + momentum * running_mean
        running_var = (1 - momentum) * var + momentum * running_var
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
    return (x - mean) / jnp.sqrt(var + eps) * weight + bias, buffers


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchNorm(Layer):
    """Normalises each channel over the batch, in one of its dialects."""

    family = "normalisation"
    equinox = Side(("BatchNorm",), "own", page="normalisation")
    flax = Side(("BatchNorm",), "own", page="normalization")
    same = {"eps": "epsilon"}

    features: int = 3
    dialect: BatchNormDialect = "standard"
    momentum: float = 0.9
    eps: float = 1e-5
    size: tuple[int, ...] = extent((2,))

    @property
    def inputs(self):
        return (Shaped((*self.size, self.features)),)

    def variables(self):
        return batch_norm_variables(self.features, self.dialect)

    def forward(self, params, buffers, x, *, key, training):
        return batch_norm(
            x,
            **params,
            **buffers,
            dialect=self.dialect,
            momentum=self.momentum,
            eps=self.eps,
            training=training,
        )
