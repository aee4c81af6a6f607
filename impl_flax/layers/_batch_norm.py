"""Equinox's two BatchNorms.

They act on a batch, channels last, keep their statistics in `nnx.BatchStat`
and answer to `train()`, `eval()` and `nnx.view` like any stock layer.
"""

from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float


class BatchNorm(nnx.Module):
    """Equinox's two batch normalisations, `mode="ema"` and `mode="batch"`.

    `"ema"` trains *on the running statistics*, updated first; the first batch
    is stored as it is. `"batch"` trains on batch statistics, and inference
    divides the running ones by `1 - momentum**count`.

    Reference: `equinox.nn.BatchNorm`; equinox #659 on why `"batch"` exists.
    """

    def __init__(
        self,
        num_features: int,
        *,
        mode: Literal["ema", "batch"],
        use_running_average: bool = False,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Makes a layer for `num_features` channels.

        Args:
            num_features: number of channels, the last axis of the input.
            mode: `"ema"` or `"batch"`.
            use_running_average: whether to normalise by what is stored.
            momentum: weight of the old running statistics.
            epsilon: added to the variance.
            param_dtype: of parameters and statistics.
            rngs: unused, as every layer takes it.
        """
        del rngs
        shape = (num_features,)
        self.scale = nnx.Param(jnp.ones(shape, param_dtype))
        self.bias = nnx.Param(jnp.zeros(shape, param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros(shape, param_dtype))
        if mode == "ema":
            self.var = nnx.BatchStat(jnp.zeros(shape, param_dtype))
            self.first_time = nnx.BatchStat(jnp.array(True))
        elif mode == "batch":
            self.var = nnx.BatchStat(jnp.ones(shape, param_dtype))
            self.count = nnx.BatchStat(jnp.array(0, jnp.int32))
        else:
            raise ValueError(
                f"BatchNorm mode: got {mode!r}, expected 'ema' or 'batch'. "
                "Use nnx.BatchNorm for the standard one."
            )
        self.mode = mode
        self.use_running_average = use_running_average
        self.momentum = momentum
        self.epsilon = epsilon

    def __call__(
        self,
        x: Float[Array, "B *S C"],
        use_running_average: bool | None = None,
    ) -> Float[Array, "B *S C"]:
        """Normalises a batch; in training, updates the statistics."""
        if use_running_average is None:
            use_running_average = self.use_running_average
        if use_running_average:
            mean, var = self.mean[...], self.var[...]
            if self.mode == "batch":
                count = self.count[...]
                debias = jnp.where(count == 0, 1, 1 - self.momentum**count)
                mean, var = mean / debias, var / debias
        else:
            mean, var = self._update(x)
        x = (x - mean) / jnp.sqrt(var + self.epsilon)
        return x * self.scale[...] + self.bias[...]

    def _update(self, x: Array) -> tuple[Array, Array]:
        """Updates the statistics; returns those to train on."""
        axes = tuple(range(x.ndim - 1))
        mean = jnp.mean(x, axes)
        var = jnp.mean(jnp.square(x - mean), axes)
        m = self.momentum
        running_mean = (1 - m) * mean + m * self.mean[...]
        running_var = (1 - m) * var + m * self.var[...]
        if self.mode == "ema":
            first_time = self.first_time[...]
            mean = running_mean = jnp.where(first_time, mean, running_mean)
            var = running_var = jnp.where(first_time, var, running_var)
            self.first_time[...] = jnp.zeros_like(first_time)
        else:
            self.count[...] += 1
        self.mean[...] = lax.stop_gradient(running_mean)
        self.var[...] = lax.stop_gradient(running_var)
        return mean, var

    def set_view(self, use_running_average: bool | None = None):
        """Class method used by `nnx.view`.

        Args:
            use_running_average: whether to normalise by what is stored.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average


def batch_norm(
    num_features: int,
    dialect: Literal["ema", "batch", "standard"],
    *,
    momentum: float,
    epsilon: float,
    rngs: nnx.Rngs,
) -> BatchNorm | nnx.BatchNorm:
    """Returns the layer that speaks a dialect."""
    if dialect == "standard":
        return nnx.BatchNorm(
            num_features,
            momentum=momentum,
            epsilon=epsilon,
            # E[x^2] - E[x]^2 loses all digits where the mean is large.
            use_fast_variance=False,
            rngs=rngs,
        )
    return BatchNorm(
        num_features,
        mode=dialect,
        momentum=momentum,
        epsilon=epsilon,
        rngs=rngs,
    )
