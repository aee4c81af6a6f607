"""A BatchNorm with Flax's meaning, and PyTorch's.

It acts on one example under `jax.vmap(..., axis_name=...)`, takes `key=` and
`inference=`, and answers to `eqx.nn.inference_mode` like any stock layer.
"""

from collections.abc import Hashable
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray


class BatchNorm(eqx.nn.StatefulLayer):
    """Normalises by batch statistics, and at inference by their average.

    Unlike both modes of `eqx.nn.BatchNorm` it neither trains on the running
    statistics (`"ema"`) nor divides them at inference (`"batch"`). It means
    what `nnx.BatchNorm` does, or `torch.nn.BatchNorm2d` with `unbiased=True`.
    It computes in float32 or more, and returns the dtype of its input.

    Reference: Ioffe and Szegedy, "Batch Normalization", 2015,
        arXiv:1502.03167.
    """

    weight: Float[Array, " C"] | None
    bias: Float[Array, " C"] | None
    state_index: eqx.nn.StateIndex[
        tuple[Float[Array, " C"], Float[Array, " C"]]
    ]
    inference: bool
    axis_name: Hashable = eqx.field(static=True)
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
        """Makes a layer for `input_size` channels.

        Args:
            input_size: number of channels, the first axis of the input.
            axis_name: the vmapped axis to take statistics over.
            eps: added to the variance.
            channelwise_affine: whether there are a weight and a bias.
            momentum: weight of the old running statistics.
            inference: whether to normalise by the running statistics.
            dtype: of the parameters, JAX's default if `None`; and of the
                statistics, which are float32 at least.
            unbiased: whether the running variance is of the unbiased
                variance, as in PyTorch. Training normalises by the biased
                one all the same.
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
        self.inference = inference
        self.axis_name = axis_name
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
        """Normalises one example; returns it and the updated state.

        Args:
            x: the example.
            state: holds the running statistics.
            mask: which elements of the example count for the statistics.
            key: unused, as every layer takes it.
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
            mean, var, count = self._statistics(x, mask)
            stored = var
            if self.unbiased:
                stored = var * (count / jnp.maximum(count - 1, 1))
            state = self._update(state, mean, stored)

        x = (x - _per_channel(mean, x)) * _per_channel(
            lax.rsqrt(var + self.eps), x
        )
        if self.weight is not None and self.bias is not None:
            x = x * _per_channel(self.weight, x) + _per_channel(self.bias, x)
        return x.astype(dtype), state

    def _statistics(self, x, mask):
        """Mean, biased variance and number of each channel's elements."""
        axes = tuple(range(1, x.ndim))
        if mask is None:
            count = lax.axis_size(self.axis_name) * x[0].size
        else:
            mask = jnp.broadcast_to(mask, x.shape)
            count = lax.psum(jnp.sum(mask, axes), self.axis_name)

        def average(y):
            total = lax.psum(jnp.sum(y, axes, where=mask), self.axis_name)
            return total / count

        mean = average(x)
        return mean, average(jnp.square(x - _per_channel(mean, x))), count

    def _update(self, state, mean, var):
        """Moves the running statistics towards those of the batch."""
        m = self.momentum
        moved = (
            (m * old + (1 - m) * new).astype(old.dtype)
            for old, new in zip(
                state.get(self.state_index), (mean, var), strict=True
            )
        )
        return state.set(self.state_index, tuple(moved))


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
    """Returns the layer that speaks a dialect, over the axis `"batch"`."""
    if dialect == "ema" or dialect == "batch":
        return eqx.nn.BatchNorm(
            input_size,
            "batch",
            eps=eps,
            channelwise_affine=channelwise_affine,
            momentum=momentum,
            dtype=dtype,
            mode=dialect,
        )
    return BatchNorm(
        input_size,
        "batch",
        eps=eps,
        channelwise_affine=channelwise_affine,
        momentum=momentum,
        dtype=dtype,
        unbiased=dialect == "torch",
    )
