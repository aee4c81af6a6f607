"""A BatchNorm with Flax's meaning.

It acts on one example under `jax.vmap(..., axis_name=...)`, takes `key=` and
`inference=`, and answers to `eqx.nn.inference_mode` like any stock layer.
"""

from collections.abc import Hashable
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray


class StandardBatchNorm(eqx.nn.StatefulLayer):
    """Normalises by batch statistics, and at inference by their average.

    Unlike both modes of `eqx.nn.BatchNorm` it neither trains on the running
    statistics (`"ema"`) nor divides them at inference (`"batch"`).

    Reference: Ioffe and Szegedy, "Batch Normalization", 2015,
        arXiv:1502.03167.
    """

    weight: Float[Array, " C"]
    bias: Float[Array, " C"]
    state_index: eqx.nn.StateIndex[
        tuple[Float[Array, " C"], Float[Array, " C"]]
    ]
    inference: bool
    axis_name: Hashable = eqx.field(static=True)
    momentum: float = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    def __init__(
        self,
        input_size: int,
        axis_name: Hashable,
        eps: float = 1e-5,
        momentum: float = 0.99,
        inference: bool = False,
        dtype=None,
    ):
        """Makes a layer for `input_size` channels.

        Args:
            input_size: number of channels, the first axis of the input.
            axis_name: the vmapped axis to take statistics over.
            eps: added to the variance.
            momentum: weight of the old running statistics.
            inference: whether to normalise by the running statistics.
            dtype: of parameters and statistics; JAX's default if `None`.
        """
        self.weight = jnp.ones(input_size, dtype)
        self.bias = jnp.zeros(input_size, dtype)
        self.state_index = eqx.nn.StateIndex(
            (jnp.zeros(input_size, dtype), jnp.ones(input_size, dtype))
        )
        self.inference = inference
        self.axis_name = axis_name
        self.momentum = momentum
        self.eps = eps

    def __call__(
        self,
        x: Float[Array, "C *S"],
        state: eqx.nn.State,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, "C *S"], eqx.nn.State]:
        """Normalises one example; returns it and the updated state."""
        del key
        if inference is None:
            inference = self.inference
        running_mean, running_var = state.get(self.state_index)

        def per_channel(statistic):
            return statistic.reshape(-1, *[1] * (x.ndim - 1))

        if inference:
            mean, var = running_mean, running_var
        else:
            axes = tuple(range(1, x.ndim))
            mean = lax.pmean(jnp.mean(x, axes), self.axis_name)
            var = lax.pmean(
                jnp.mean(jnp.square(x - per_channel(mean)), axes),
                self.axis_name,
            )
            m = self.momentum
            state = state.set(
                self.state_index,
                (
                    m * running_mean + (1 - m) * mean,
                    m * running_var + (1 - m) * var,
                ),
            )

        x = (x - per_channel(mean)) / jnp.sqrt(per_channel(var) + self.eps)
        return x * per_channel(self.weight) + per_channel(self.bias), state


def batch_norm(
    input_size: int,
    dialect: Literal["ema", "batch", "standard"],
    *,
    momentum: float,
    eps: float,
    dtype=None,
) -> StandardBatchNorm | eqx.nn.BatchNorm:
    """Returns the layer that speaks a dialect, over the axis `"batch"`."""
    if dialect == "standard":
        return StandardBatchNorm(
            input_size, "batch", eps=eps, momentum=momentum, dtype=dtype
        )
    return eqx.nn.BatchNorm(
        input_size,
        "batch",
        eps=eps,
        momentum=momentum,
        dtype=dtype,
        mode=dialect,
    )
