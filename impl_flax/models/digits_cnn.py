"""A batch, channels last; dropout takes its key from the `rngs` of the call.

The features are flattened in the order (C, H, W), so that the weight of the
linear layer is the same as in a channels-first library.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from common.layers import BatchNormDialect
from impl_flax import layers


class DigitsCNN(nnx.Module):
    """[Conv, BatchNorm, relu] twice, max-pool, Dropout, Linear."""

    def __init__(
        self,
        channels: tuple[int, int] = (16, 32),
        classes: int = 10,
        dropout: float = 0.25,
        *,
        batch_norm: BatchNormDialect = "standard",
        momentum: float = 0.9,
        eps: float = 1e-5,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        c1, c2 = channels
        self.conv1 = nnx.Conv(
            1, c1, kernel_size=(3, 3), use_bias=False, dtype=dtype, rngs=rngs
        )
        self.norm1 = nnx.BatchNorm(
            num_features=c1,
            momentum=momentum,
            epsilon=eps,
            use_fast_variance=False,
            dtype=dtype,
            promote_dtype=layers.keep_dtypes,
            rngs=rngs,
        )
        self.conv2 = nnx.Conv(
            c1, c2, kernel_size=(3, 3), use_bias=False, dtype=dtype, rngs=rngs
        )
        self.norm2 = nnx.BatchNorm(
            num_features=c2,
            momentum=momentum,
            epsilon=eps,
            use_fast_variance=False,
            dtype=dtype,
            promote_dtype=layers.keep_dtypes,
            rngs=rngs,
        )
        self.dropout = nnx.Dropout(dropout)
        self.linear = nnx.Linear(c2 * 4 * 4, classes, dtype=dtype, rngs=rngs)

        if batch_norm != "standard":  # replace the norms, and nothing else
            self.norm1, self.norm2 = (
                layers.batch_norm(
                    size,
                    batch_norm,
                    momentum=momentum,
                    epsilon=eps,
                    dtype=dtype,
                    rngs=rngs,
                )
                for size in channels
            )

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
