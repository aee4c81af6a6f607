"""Explicit state: a stateful layer takes `state` and returns an updated one.

The model acts on one example. `jax.vmap(..., axis_name="batch")` makes it act
on a batch, and BatchNorm computes its statistics over the axis of that name.
"""

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from common.layers import BatchNormDialect
from impl_equinox import layers


class StatefulMLP(eqx.Module):
    """A mix of stateful and stateless layers, for demonstration only."""

    norm1: eqx.nn.BatchNorm | layers.BatchNorm
    spectral_linear: eqx.nn.SpectralNorm[eqx.nn.Linear]
    norm2: eqx.nn.BatchNorm | layers.BatchNorm
    linear1: eqx.nn.Linear
    linear2: eqx.nn.Linear

    def __init__(
        self,
        in_size: int = 3,
        hidden_size: int = 32,
        out_size: int = 3,
        *,
        batch_norm: BatchNormDialect = "ema",
        momentum: float = 0.99,
        eps: float = 1e-5,
        key: PRNGKeyArray,
    ):
        key1, key2, key3, key4 = jr.split(key, 4)
        self.norm1 = eqx.nn.BatchNorm(
            input_size=in_size,
            axis_name="batch",
            eps=eps,
            momentum=momentum,
            mode="ema",
        )
        self.spectral_linear = eqx.nn.SpectralNorm(
            layer=eqx.nn.Linear(in_size, hidden_size, key=key1),
            weight_name="weight",
            key=key2,
        )
        self.norm2 = eqx.nn.BatchNorm(
            input_size=hidden_size,
            axis_name="batch",
            eps=eps,
            momentum=momentum,
            mode="ema",
        )
        self.linear1 = eqx.nn.Linear(hidden_size, hidden_size, key=key3)
        self.linear2 = eqx.nn.Linear(hidden_size, out_size, key=key4)

        if batch_norm != "ema":  # replace the norms, and nothing else
            self.norm1, self.norm2 = (
                layers.batch_norm(size, batch_norm, momentum=momentum, eps=eps)
                for size in (in_size, hidden_size)
            )

    def __call__(
        self,
        x: Float[Array, " in_size"],
        state: eqx.nn.State,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, " out_size"], eqx.nn.State]:
        del key
        x, state = self.norm1(x, state)
        x, state = self.spectral_linear(x, state)
        x = jax.nn.relu(x)
        x, state = self.norm2(x, state)
        x = self.linear1(x)
        x = jax.nn.relu(x)
        x = self.linear2(x)
        return x, state
