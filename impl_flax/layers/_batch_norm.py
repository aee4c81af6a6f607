"""Equinox's two BatchNorms, and PyTorch's.

They act on a batch, channels last, keep their statistics in `nnx.BatchStat`
and answer to `train()`, `eval()` and `nnx.view` like any stock layer.
"""

from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float


class BatchNorm(nnx.Module):
    """Three batch normalisations: `mode="ema"`, `"batch"` and `"torch"`.

    `"ema"` trains *on the running statistics*, updated first; the first batch
    is stored as it is. `"batch"` trains on batch statistics, and inference
    divides the running ones by `1 - momentum**count`. `"torch"` is
    `nnx.BatchNorm`, but the running variance is of the unbiased variance.
    Statistics are float32 at least.

    Reference: `equinox.nn.BatchNorm`; equinox #659 on why `"batch"` exists.
        `torch.nn.BatchNorm2d`, whose momentum is one minus this.
    """

    def __init__(
        self,
        num_features: int,
        *,
        mode: Literal["ema", "batch", "torch"],
        use_running_average: bool = False,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        param_dtype: Any = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        rngs: nnx.Rngs,
    ):
        """Makes a layer for `num_features` channels.

        Args:
            num_features: number of channels, the last axis of the input.
            mode: `"ema"`, `"batch"` or `"torch"`.
            use_running_average: whether to normalise by what is stored.
            momentum: weight of the old running statistics.
            epsilon: added to the variance.
            param_dtype: of parameters, and of statistics if it is wider than
                float32.
            use_bias: whether to add a bias.
            use_scale: whether to multiply by a scale.
            rngs: unused, as every layer takes it.
        """
        del rngs
        if mode not in ("ema", "batch", "torch"):
            raise ValueError(
                f"BatchNorm mode: got {mode!r}, expected 'ema', 'batch' or "
                "'torch'. Use nnx.BatchNorm for the standard one."
            )
        wide = jnp.promote_types(param_dtype, jnp.float32)

        def filled(value: int, dtype: Any) -> Array:
            return jnp.full(num_features, value, dtype)

        self.scale = nnx.Param(filled(1, param_dtype)) if use_scale else None
        self.bias = nnx.Param(filled(0, param_dtype)) if use_bias else None
        self.mean = nnx.BatchStat(filled(0, wide))
        self.var = nnx.BatchStat(filled(0 if mode == "ema" else 1, wide))
        if mode == "ema":
            self.first_time = nnx.BatchStat(jnp.array(True))
        if mode == "batch":
            self.count = nnx.BatchStat(jnp.array(0, jnp.int32))
        self.mode = mode
        self.use_running_average = use_running_average
        self.momentum = momentum
        self.epsilon = epsilon

    def __call__(
        self,
        x: Float[Array, "B *S C"],
        use_running_average: bool | None = None,
        *,
        mask: Bool[Array, "#B *#S #C"] | None = None,
    ) -> Float[Array, "B *S C"]:
        """Normalises a batch; in training, updates the statistics.

        Args:
            x: the batch.
            use_running_average: overrides that of the layer.
            mask: which elements count for the statistics.
        """
        if use_running_average is None:
            use_running_average = self.use_running_average
        affine = [it[...] for it in (self.scale, self.bias) if it is not None]
        dtype = jnp.result_type(x, *affine)
        x = x.astype(jnp.promote_types(dtype, jnp.float32))
        if use_running_average:
            mean, var = self.mean[...], self.var[...]
            if self.mode == "batch":
                count = self.count[...]
                debias = jnp.where(count == 0, 1, 1 - self.momentum**count)
                mean, var = mean / debias, var / debias
        else:
            mean, var = self._update(x, mask)
        x = (x - mean) / jnp.sqrt(var + self.epsilon)
        if self.scale is not None:
            x = x * self.scale[...]
        if self.bias is not None:
            x = x + self.bias[...]
        return x.astype(dtype)

    def _update(self, x: Array, mask: Array | None) -> tuple[Array, Array]:
        """Updates the statistics; returns those to train on."""
        axes = tuple(range(x.ndim - 1))
        mean = jnp.mean(x, axes, where=mask)
        var = jnp.mean(jnp.square(x - mean), axes, where=mask)
        stored = var
        if self.mode == "torch":
            n: Any = x.size // x.shape[-1]
            if mask is not None:
                n = jnp.sum(jnp.broadcast_to(mask, x.shape), axes)
            stored = var * (n / jnp.maximum(n - 1, 1))
        m = self.momentum
        running_mean = (1 - m) * mean + m * self.mean[...]
        running_var = (1 - m) * stored + m * self.var[...]
        if self.mode == "ema":
            first_time = self.first_time[...]
            mean = running_mean = jnp.where(first_time, mean, running_mean)
            var = running_var = jnp.where(first_time, var, running_var)
            self.first_time[...] = jnp.zeros_like(first_time)
        if self.mode == "batch":
            self.count[...] += 1
        for old, new in ((self.mean, running_mean), (self.var, running_var)):
            old[...] = lax.stop_gradient(new).astype(old[...].dtype)
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
    dialect: Literal["ema", "batch", "standard", "torch"],
    *,
    momentum: float,
    epsilon: float,
    use_bias: bool = True,
    use_scale: bool = True,
    rngs: nnx.Rngs,
) -> BatchNorm | nnx.BatchNorm:
    """Returns the layer that speaks a dialect."""
    if dialect == "standard":
        return nnx.BatchNorm(
            num_features,
            momentum=momentum,
            epsilon=epsilon,
            use_bias=use_bias,
            use_scale=use_scale,
            # E[x^2] - E[x]^2 loses all digits where the mean is large.
            use_fast_variance=False,
            promote_dtype=_as_they_are,
            rngs=rngs,
        )
    return BatchNorm(
        num_features,
        mode=dialect,
        momentum=momentum,
        epsilon=epsilon,
        use_bias=use_bias,
        use_scale=use_scale,
        rngs=rngs,
    )


def _as_they_are(
    arrays: Any, /, *, dtype: Any = None, inexact: bool = True
) -> Any:
    """Promotes nothing: statistics in float32 would widen a bfloat16 output.

    The layer computes in float32 at least all the same.
    """
    del dtype, inexact
    return arrays
