"""One example, channels first; dropout takes an explicit key.

`layers.Dropout` samples one mask for the whole batch, so every example of the
batch is given the same key.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from common.layers import BatchNormDialect
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
        batch_norm: BatchNormDialect = "standard",
        momentum: float = 0.9,
        eps: float = 1e-5,
        key: PRNGKeyArray,
    ):
        key1, key2, key3 = jr.split(key, 3)
        c1, c2 = channels
        self.conv1 = eqx.nn.Conv2d(
            1, c1, kernel_size=3, padding=1, use_bias=False, key=key1
        )
        self.norm1 = layers.BatchNorm(
            input_size=c1, axis_name="batch", eps=eps, momentum=momentum
        )
        self.conv2 = eqx.nn.Conv2d(
            c1, c2, kernel_size=3, padding=1, use_bias=False, key=key2
        )
        self.norm2 = layers.BatchNorm(
            input_size=c2, axis_name="batch", eps=eps, momentum=momentum
        )
        self.pool = eqx.nn.MaxPool2d(kernel_size=2, stride=2)
        self.dropout = layers.Dropout(dropout, axis_name="batch")
        self.linear = eqx.nn.Linear(c2 * 4 * 4, classes, key=key3)

        if batch_norm != "standard":  # replace the norms, and nothing else
            self.norm1, self.norm2 = (
                layers.batch_norm(size, batch_norm, momentum=momentum, eps=eps)
                for size in channels
            )

    def __call__(
        self,
        x: Float[Array, "8 8 1"],
        state: eqx.nn.State,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, " classes"], eqx.nn.State]:
        # One key for each Dropout, the same as those of a stream of nnx.Rngs.
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
