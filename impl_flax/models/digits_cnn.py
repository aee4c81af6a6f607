"""A batch, channels last; dropout draws from the `rngs` of the call.

The features are flattened as (C, H, W), so that the Linear behind them has
the same weight as in a channels-first library.
"""

from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from impl_flax import layers


class DigitsCNN(nnx.Module):
    """[Conv, BatchNorm, relu] twice, max-pool, Dropout, Linear."""

    def __init__(
        self,
        channels: tuple[int, int] = (16, 32),
        classes: int = 10,
        dropout: float = 0.25,
        *,
        batch_norm: Literal["ema", "batch", "standard", "torch"] = "standard",
        momentum: float = 0.9,
        eps: float = 1e-5,
        rngs: nnx.Rngs,
    ):
        c1, c2 = channels
        conv = {"kernel_size": (3, 3), "use_bias": False, "rngs": rngs}
        norm = {"momentum": momentum, "epsilon": eps, "rngs": rngs}
        self.conv1 = nnx.Conv(1, c1, **conv)
        self.norm1 = layers.batch_norm(c1, batch_norm, **norm)
        self.conv2 = nnx.Conv(c1, c2, **conv)
        self.norm2 = layers.batch_norm(c2, batch_norm, **norm)
        self.dropout = nnx.Dropout(dropout)
        self.linear = nnx.Linear(c2 * 4 * 4, classes, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B 8 8 1"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B classes"]:
        x = self.conv1(x)
        x = self.norm1(x)
        x = nnx.relu(x)
        x = self.conv2(x)
        x = self.norm2(x)
        x = nnx.relu(x)
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        x = jnp.transpose(x, (0, 3, 1, 2))  # (B, H, W, C) -> (B, C, H, W)
        x = x.reshape(x.shape[0], -1)
        x = self.dropout(x, rngs=rngs)
        x = self.linear(x)
        return x
