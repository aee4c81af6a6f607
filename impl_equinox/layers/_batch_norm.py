"""Batch normalization with the semantics of Flax and of PyTorch.

The layer acts on one example inside `jax.vmap(..., axis_name=...)`. Like the
stock layers it accepts `key=` and `inference=`, and respects
`eqx.nn.inference_mode`.
"""

from collections.abc import Hashable
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray


class BatchNorm(eqx.nn.StatefulLayer):
    r"""Batch normalization as in Flax, or as in PyTorch.

    .. math::
        y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \gamma + \beta

    During training, :math:`\mu` and :math:`\sigma^2` are the statistics of
    the batch, and the running statistics are updated as
    :math:`\hat\mu \leftarrow m \hat\mu + (1 - m) \mu`, and
    :math:`\hat\sigma^2` likewise. At inference they are the running
    statistics.

    `eqx.nn.BatchNorm` computes something else in both of its modes: `"ema"`
    normalizes by the running statistics during training, too, and `"batch"`
    divides them by :math:`1 - m^t` at inference. This layer computes what
    `nnx.BatchNorm` does, or with `unbiased=True` what `torch.nn.BatchNorm2d`
    does. Statistics are computed in float32 or wider; the output has the
    dtype of the input.

    Example:

        >>> import equinox as eqx
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from impl_equinox.layers import BatchNorm
        >>> norm, state = eqx.nn.make_with_state(BatchNorm)(
        ...     input_size=3, axis_name="batch", momentum=0.5
        ... )
        >>> batch_norm = jax.vmap(
        ...     norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
        ... )
        >>> xs = jnp.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], "float32")
        >>> ys, state = batch_norm(xs, state)
        >>> ys.shape
        (2, 3)
        >>> running_mean, running_var = state.get(norm.state_index)
        >>> running_mean.tolist(), running_var.tolist()
        ([1.0, 1.0, 1.0], [1.0, 0.5, 1.0])

    References:
        Ioffe and Szegedy, "Batch Normalization", 2015, arXiv:1502.03167.
    """

    weight: Float[Array, " C"] | None
    bias: Float[Array, " C"] | None
    state_index: eqx.nn.StateIndex[
        tuple[Float[Array, " C"], Float[Array, " C"]]
    ]
    axis_name: Hashable
    inference: bool
    momentum: float = eqx.field(static=True)
    eps: float = eqx.field(static=True)
    unbiased: bool = eqx.field(static=True)

    def __init__(
        self,
        input_size: int,
        axis_name: Hashable,
        eps: float = 1e-5,
        channelwise_affine: bool = True,
        momentum: float = 0.99,
        inference: bool = False,
        dtype=None,
        *,
        unbiased: bool = False,
    ):
        """Creates a layer for `input_size` channels.

        Args:
            input_size: the number of channels, the first axis of the input.
            axis_name: the name of the vmapped batch axis.
            eps: added to the variance for numerical stability.
            channelwise_affine: whether to have a weight and a bias.
            momentum: the decay rate of the running statistics.
            inference: whether to normalize by the running statistics.
            dtype: the dtype of the parameters, by default JAX's default
                float dtype. The running statistics have this dtype or
                float32, whichever is wider.
            unbiased: whether the running variance averages the unbiased
                variance of each batch, as in PyTorch. Training normalizes by
                the biased variance in either case.
        """
        dtype = jnp.zeros((), dtype).dtype  # resolves `None`
        self.weight = self.bias = None
        if channelwise_affine:
            self.weight = jnp.ones(input_size, dtype)
            self.bias = jnp.zeros(input_size, dtype)
        wide = jnp.promote_types(dtype, jnp.float32)
        self.state_index = eqx.nn.StateIndex(
            (jnp.zeros(input_size, wide), jnp.ones(input_size, wide))
        )
        self.axis_name = axis_name
        self.inference = inference
        self.momentum = momentum
        self.eps = eps
        self.unbiased = unbiased

    def __call__(
        self,
        x: Float[Array, "C *S"],
        state: eqx.nn.State,
        *,
        mask: Bool[Array, "#C *#S"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, "C *S"], eqx.nn.State]:
        """Normalizes one example, and returns it with the updated state.

        Args:
            x: the example.
            state: contains the running statistics.
            mask: true for the elements that contribute to the statistics.
                The gradient of a NaN or an infinity elsewhere is zero.
            key: ignored; provided for compatibility with other layers.
            inference: overrides `self.inference`.
        """
        del key
        if inference is None:
            inference = self.inference
        dtype = x.dtype
        x = x.astype(jnp.promote_types(dtype, jnp.float32))

        if inference:
            mean, var = state.get(self.state_index)
        else:
            mean, var, count = self._batch_statistics(x, mask)
            stored_var = var
            if self.unbiased:
                stored_var = var * (count / jnp.maximum(count - 1, 1))
            state = self._update(state, mean, stored_var)

        def apply(x):
            scale = _per_channel(lax.rsqrt(var + self.eps), x)
            x = (x - _per_channel(mean, x)) * scale
            if self.weight is None or self.bias is None:
                return x
            return x * _per_channel(self.weight, x) + _per_channel(
                self.bias, x
            )

        if mask is None:
            return apply(x).astype(dtype), state
        # In a gradient, such an element would turn zeros into NaN.
        lost = ~(mask | jnp.isfinite(x))
        x = jnp.where(
            lost, lax.stop_gradient(apply(x)), apply(jnp.where(lost, 0, x))
        )
        return x.astype(dtype), state

    def _batch_statistics(self, x, mask):
        """Returns each channel's mean, biased variance, and element count."""
        axes = tuple(range(1, x.ndim))
        if mask is None:
            count = lax.axis_size(self.axis_name) * x[0].size
        else:
            mask = jnp.broadcast_to(mask, x.shape)
            x = jnp.where(mask, x, 0)
            count = lax.psum(jnp.sum(mask, axes), self.axis_name)

        def average(y):
            total = lax.psum(jnp.sum(y, axes, where=mask), self.axis_name)
            return total / count

        mean = average(x)
        return mean, average(jnp.square(x - _per_channel(mean, x))), count

    def _update(self, state, mean, var):
        """Returns the state with updated running statistics."""
        m = self.momentum
        updated = (
            (m * old + (1 - m) * new).astype(old.dtype)
            for old, new in zip(
                state.get(self.state_index), (mean, var), strict=True
            )
        )
        return state.set(self.state_index, tuple(updated))


def _per_channel(statistic: Array, x: Array) -> Array:
    return statistic.reshape(-1, *[1] * (x.ndim - 1))


def batch_norm(
    input_size: int,
    dialect: Literal["ema", "batch", "standard", "torch"],
    *,
    momentum: float,
    eps: float,
    channelwise_affine: bool = True,
    dtype=None,
) -> BatchNorm | eqx.nn.BatchNorm:
    """Creates the batch norm layer for a dialect, over the axis `"batch"`.

    `"ema"` and `"batch"` are the modes of `eqx.nn.BatchNorm`; `"standard"`
    and `"torch"` are `BatchNorm`.

    Example:

        >>> from impl_equinox import layers
        >>> layers.batch_norm(3, "ema", momentum=0.9, eps=1e-5).mode
        'ema'
        >>> layers.batch_norm(3, "torch", momentum=0.9, eps=1e-5).unbiased
        True
    """
    if dialect == "ema" or dialect == "batch":
        return eqx.nn.BatchNorm(
            input_size=input_size,
            axis_name="batch",
            eps=eps,
            channelwise_affine=channelwise_affine,
            momentum=momentum,
            dtype=dtype,
            mode=dialect,
        )
    return BatchNorm(
        input_size=input_size,
        axis_name="batch",
        eps=eps,
        channelwise_affine=channelwise_affine,
        momentum=momentum,
        dtype=dtype,
        unbiased=dialect == "torch",
    )
