"""Batch normalization with the semantics of Equinox and of PyTorch.

The layer acts on a batch, channels last. It stores its statistics in
`nnx.BatchStat`s, and respects `train()`, `eval()` and `nnx.view` like the
stock layers.
"""

from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float


class BatchNorm(nnx.Module):
    r"""Batch normalization as in Equinox, or as in PyTorch.

    .. math::
        y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \gamma + \beta

    During training, the running statistics are updated as
    :math:`\hat\mu \leftarrow m \hat\mu + (1 - m) \mu_B`, and
    :math:`\hat\sigma^2` likewise, where :math:`\mu_B` and
    :math:`\sigma^2_B` are the statistics of the batch. The mode says what
    :math:`\mu` and :math:`\sigma^2` are:

    * `"ema"`: the running statistics, both at inference and during training,
      when they are updated first. The statistics of the first batch are
      stored unchanged.
    * `"batch"`: the statistics of the batch during training, and the running
      statistics divided by :math:`1 - m^t` after :math:`t` batches at
      inference.
    * `"torch"`: the statistics of the batch during training, and the running
      statistics at inference, as in `nnx.BatchNorm`. The running variance
      averages the unbiased variance of each batch.

    Statistics are computed in float32 or wider.

    Example:

        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from impl_flax.layers import BatchNorm
        >>> norm = BatchNorm(3, mode="ema", rngs=nnx.Rngs(0))
        >>> x = jnp.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], "float32")
        >>> norm(x).shape
        (2, 3)
        >>> norm.mean[...].tolist(), norm.var[...].tolist()
        ([2.0, 2.0, 2.0], [1.0, 0.0, 1.0])

    References:
        Ioffe and Szegedy, "Batch Normalization", 2015, arXiv:1502.03167.
        Counterparts: `equinox.nn.BatchNorm`, whose modes equinox #659
        discusses, and `torch.nn.BatchNorm2d`, whose momentum is one minus
        this one.
    """

    def __init__(
        self,
        num_features: int,
        *,
        mode: Literal["ema", "batch", "torch"],
        use_running_average: bool = False,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        rngs: nnx.Rngs,
    ):
        """Creates a layer for `num_features` channels.

        Args:
            num_features: the number of channels, the last axis of the input.
            mode: `"ema"`, `"batch"` or `"torch"`.
            use_running_average: whether to normalize by the running
                statistics.
            momentum: the decay rate of the running statistics.
            epsilon: added to the variance for numerical stability.
            dtype: the dtype of the result, by default inferred from the
                input and the parameters.
            param_dtype: the dtype of the parameters. The running statistics
                have this dtype or float32, whichever is wider.
            use_bias: whether to add a bias.
            use_scale: whether to multiply by a scale.
            rngs: ignored; provided for compatibility with other layers.
        """
        del rngs
        if mode not in ("ema", "batch", "torch"):
            raise ValueError(
                f"BatchNorm mode: got {mode!r}, expected 'ema', 'batch' or "
                "'torch'. Use nnx.BatchNorm for the standard one."
            )
        wide = jnp.promote_types(param_dtype, jnp.float32)

        self.scale: nnx.Param[Array] | None
        if use_scale:
            self.scale = nnx.Param(jnp.ones(num_features, param_dtype))
        else:
            self.scale = nnx.data(None)

        self.bias: nnx.Param[Array] | None
        if use_bias:
            self.bias = nnx.Param(jnp.zeros(num_features, param_dtype))
        else:
            self.bias = nnx.data(None)

        initial_var = 0 if mode == "ema" else 1
        self.mean = nnx.BatchStat(jnp.zeros(num_features, wide))
        self.var = nnx.BatchStat(jnp.full(num_features, initial_var, wide))

        self.first_time: nnx.BatchStat[Array] | None
        if mode == "ema":
            self.first_time = nnx.BatchStat(jnp.array(True))
        else:
            self.first_time = nnx.data(None)

        self.count: nnx.BatchStat[Array] | None
        if mode == "batch":
            self.count = nnx.BatchStat(jnp.array(0, jnp.int32))
        else:
            self.count = nnx.data(None)

        self.mode = mode
        self.use_running_average = use_running_average
        self.momentum = momentum
        self.epsilon = epsilon
        self.dtype = dtype
        self.param_dtype = param_dtype

    def __call__(
        self,
        x: Float[Array, "B *S C"],
        use_running_average: bool | None = None,
        *,
        mask: Bool[Array, "#B *#S #C"] | None = None,
    ) -> Float[Array, "B *S C"]:
        """Normalizes a batch, and during training updates the statistics.

        Args:
            x: the batch.
            use_running_average: overrides `self.use_running_average`.
            mask: true for the elements that contribute to the statistics.
                The gradient of a NaN or an infinity elsewhere is zero.
        """
        if use_running_average is None:
            use_running_average = self.use_running_average
        affine = [p[...] for p in (self.scale, self.bias) if p is not None]
        dtype = jnp.result_type(x, *affine)
        x = x.astype(jnp.promote_types(dtype, jnp.float32))
        if self.dtype is not None:
            dtype = self.dtype
        if use_running_average:
            mean, var = self.mean[...], self.var[...]
            if self.count is not None:
                count = self.count[...]
                debias = jnp.where(count == 0, 1, 1 - self.momentum**count)
                mean, var = mean / debias, var / debias
        else:
            mean, var = self._update(x, mask)

        def apply(x):
            x = (x - mean) / jnp.sqrt(var + self.epsilon)
            if self.scale is not None:
                x = x * self.scale[...]
            return x if self.bias is None else x + self.bias[...]

        if mask is None:
            return apply(x).astype(dtype)
        # In a gradient, such an element would turn zeros into NaN.
        lost = ~(mask | jnp.isfinite(x))
        x = jnp.where(
            lost, lax.stop_gradient(apply(x)), apply(jnp.where(lost, 0, x))
        )
        return x.astype(dtype)

    def _update(self, x: Array, mask: Array | None) -> tuple[Array, Array]:
        """Updates the statistics, and returns those to normalize by."""
        axes = tuple(range(x.ndim - 1))
        if mask is not None:
            x = jnp.where(mask, x, 0)
        mean = jnp.mean(x, axes, where=mask)
        var = jnp.mean(jnp.square(x - mean), axes, where=mask)
        stored_var = var
        if self.mode == "torch":
            n: Any = x.size // x.shape[-1]
            if mask is not None:
                n = jnp.sum(jnp.broadcast_to(mask, x.shape), axes)
            stored_var = var * (n / jnp.maximum(n - 1, 1))
        m = self.momentum
        running_mean = (1 - m) * mean + m * self.mean[...]
        running_var = (1 - m) * stored_var + m * self.var[...]
        if self.first_time is not None:
            first_time = self.first_time[...]
            mean = running_mean = jnp.where(first_time, mean, running_mean)
            var = running_var = jnp.where(first_time, var, running_var)
            self.first_time[...] = jnp.zeros_like(first_time)
        if self.count is not None:
            self.count[...] += 1
        for old, new in ((self.mean, running_mean), (self.var, running_var)):
            old[...] = lax.stop_gradient(new).astype(old[...].dtype)
        return mean, var

    def set_view(self, use_running_average: bool | None = None):
        """Class method used by `nnx.view`.

        Args:
            use_running_average: whether to normalize by the running
                statistics.
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
    dtype: Any = None,
    rngs: nnx.Rngs,
) -> BatchNorm | nnx.BatchNorm:
    """Creates the batch norm layer for a dialect.

    `"standard"` is `nnx.BatchNorm`; the other dialects are modes of
    `BatchNorm`.

    Example:

        >>> from flax import nnx
        >>> from impl_flax import layers
        >>> norm = layers.batch_norm(
        ...     3, "standard", momentum=0.9, epsilon=1e-5, rngs=nnx.Rngs(0)
        ... )
        >>> isinstance(norm, nnx.BatchNorm)
        True
    """
    if dialect == "standard":
        return nnx.BatchNorm(
            num_features,
            momentum=momentum,
            epsilon=epsilon,
            use_bias=use_bias,
            use_scale=use_scale,
            # E[x^2] - E[x]^2 loses all digits where the mean is large.
            use_fast_variance=False,
            dtype=dtype,
            promote_dtype=keep_dtypes,
            rngs=rngs,
        )
    return BatchNorm(
        num_features,
        mode=dialect,
        momentum=momentum,
        epsilon=epsilon,
        use_bias=use_bias,
        use_scale=use_scale,
        dtype=dtype,
        rngs=rngs,
    )


def keep_dtypes(
    arrays: Any, /, *, dtype: Any = None, inexact: bool = True
) -> Any:
    """Returns the arrays unchanged, as the `promote_dtype` of a stock norm.

    The norm then computes in float32 or wider, and its output has its `dtype`.
    By default it rounds its parameters and its running statistics to that
    `dtype`, or without one widens its output to the float32 of the
    statistics.

    Args:
        arrays: the input, the statistics and the parameters.
        dtype: ignored; the norm casts its output.
        inexact: ignored.

    Example:

        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from impl_flax.layers import keep_dtypes
        >>> norm = nnx.BatchNorm(
        ...     3,
        ...     dtype=jnp.bfloat16,
        ...     promote_dtype=keep_dtypes,
        ...     rngs=nnx.Rngs(0),
        ... )
        >>> x = jnp.ones((2, 3), jnp.bfloat16)
        >>> norm(x).dtype.name, norm.mean.dtype.name
        ('bfloat16', 'float32')
    """
    del dtype, inexact
    return arrays
