"""What `equinox.nn` lacks: a BatchNorm and a Dropout with Flax's meaning.

Both act on one example under `jax.vmap(..., axis_name=...)`, take `key=` and
`inference=`, and answer to `eqx.nn.inference_mode` like any stock layer.
"""

from collections.abc import Hashable
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
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


class Dropout(eqx.Module):
    """Draws one mask for the whole batch; each example takes its row.

    `eqx.nn.Dropout` draws a mask for each example from a key of its own. One
    draw over the batch is what `nnx.Dropout` does, and from the same key it
    is bit for bit the same mask.

    Reference: Srivastava et al., "Dropout", JMLR 15 (2014).
    """

    inference: bool
    p: float = eqx.field(static=True)
    axis_name: Hashable = eqx.field(static=True)

    def __init__(
        self, p: float = 0.5, *, axis_name: Hashable, inference: bool = False
    ):
        """Makes a layer that zeroes each element with probability `p`.

        Args:
            p: the probability.
            axis_name: the vmapped axis that makes the batch.
            inference: whether to return the input as it is.
        """
        self.p = p
        self.axis_name = axis_name
        self.inference = inference

    def __call__(
        self,
        x: Float[Array, "*S"],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "*S"]:
        """Drops elements of one example.

        Args:
            x: the example.
            key: one key for the whole batch (do not split it over the vmap).
            inference: overrides `self.inference`.

        Raises:
            RuntimeError: if a key is needed and not given.
        """
        if inference is None:
            inference = self.inference
        if inference or self.p == 0:
            return x
        if key is None:
            raise RuntimeError(
                "Dropout key: got None, expected a PRNG key when not in "
                "inference mode. Pass `key=`, or use "
                "`eqx.nn.inference_mode(model)`."
            )
        batch = lax.axis_size(self.axis_name)
        keep = jr.bernoulli(key, 1 - self.p, (batch, *x.shape))
        keep = keep[lax.axis_index(self.axis_name)]
        return jnp.where(keep, x / (1 - self.p), jnp.zeros_like(x))


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
