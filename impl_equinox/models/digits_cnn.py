"""One example, channels first; dropout takes an explicit key.

The own Dropout draws the batch's mask at once, so the same key goes to every
example.
"""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from impl_equinox import layers


class DigitsCNN(eqx.Module):
    """[Conv, BatchNorm, relu] twice, max-pool, Dropout, Linear."""

    conv1: eqx.nn.Conv2d
    norm1: eqx.nn.BatchNorm | layers.BatchNorm
    conv2: eqx.nn.Conv2d
    norm2: eqx.nn.BatchNorm | layers.BatchNorm
    pool: eqx.nn.MaxPool2d
    dropout: layers.Dropout
    linear: eqx.nn.Linear

    def __init__(
        self,
        channels: tuple[int, int] = (16, 32),
        classes: int = 10,
        dropout: float = 0.25,
        *,
        batch_norm: Literal["ema", "batch", "standard", "torch"] = "standard",
        momentum: float = 0.9,
        eps: float = 1e-5,
        key: PRNGKeyArray,
    ):
        key1, key2, key3 = jr.split(key, 3)
        c1, c2 = channels
        conv = {"kernel_size": 3, "padding": 1, "use_bias": False}
        norm: dict[str, Any] = {"momentum": momentum, "eps": eps}
        self.conv1 = eqx.nn.Conv2d(1, c1, **conv, key=key1)
        self.norm1 = layers.batch_norm(c1, batch_norm, **norm)
        self.conv2 = eqx.nn.Conv2d(c1, c2, **conv, key=key2)
        self.norm2 = layers.batch_norm(c2, batch_norm, **norm)
        self.pool = eqx.nn.MaxPool2d(kernel_size=2, stride=2)
        self.dropout = layers.Dropout(dropout, axis_name="batch")
        self.linear = eqx.nn.Linear(c2 * 4 * 4, classes, key=key3)

    def __call__(
        self,
        x: Float[Array, "8 8 1"],
        state: eqx.nn.State,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, " classes"], eqx.nn.State]:
        # One key for each Dropout, as `nnx.Rngs` deals them out.
        dropout_key = None if key is None else jr.split(key, 1)[0]
        x = jnp.transpose(x, (2, 0, 1))  # (H, W, C) -> (C, H, W)
        x = self.conv1(x)
        x, state = self.norm1(x, state)
        x = jax.nn.relu(x)
        x = self.conv2(x)
        x, state = self.norm2(x, state)
        x = jax.nn.relu(x)
        x = self.pool(x)
        x = jnp.ravel(x)
        x = self.dropout(x, key=dropout_key)
        x = self.linear(x)
        return x, state
