"""Explicit state: every stateful layer takes `state` and returns a new one.

A model acts on one example; `jax.vmap(..., axis_name="batch")` makes the
batch over which BatchNorm takes its statistics.
"""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from impl_equinox import layers


class StatefulMLP(eqx.Module):
    """A mish-mash of stateful and stateless layers, for demonstration."""

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
        batch_norm: Literal["ema", "batch", "standard", "torch"] = "ema",
        momentum: float = 0.99,
        eps: float = 1e-5,
        key: PRNGKeyArray,
    ):
        key1, key2, key3, key4 = jr.split(key, 4)
        norm: dict[str, Any] = {"momentum": momentum, "eps": eps}
        self.norm1 = layers.batch_norm(in_size, batch_norm, **norm)
        self.spectral_linear = eqx.nn.SpectralNorm(
            layer=eqx.nn.Linear(in_size, hidden_size, key=key1),
            weight_name="weight",
            key=key2,
        )
        self.norm2 = layers.batch_norm(hidden_size, batch_norm, **norm)
        self.linear1 = eqx.nn.Linear(hidden_size, hidden_size, key=key3)
        self.linear2 = eqx.nn.Linear(hidden_size, out_size, key=key4)

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
