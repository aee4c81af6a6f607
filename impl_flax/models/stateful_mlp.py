"""Mutable state: a stateful layer updates its `nnx.BatchStat`s in place.

The model acts on a batch, and BatchNorm computes its statistics over all axes
but the last.
"""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from common.layers import BatchNormDialect
from impl_flax import layers


class StatefulMLP(nnx.Module):
    """A mix of stateful and stateless layers, for demonstration only."""

    def __init__(
        self,
        in_size: int = 3,
        hidden_size: int = 32,
        out_size: int = 3,
        *,
        batch_norm: BatchNormDialect = "ema",
        momentum: float = 0.99,
        eps: float = 1e-5,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        self.norm1 = layers.BatchNorm(
            num_features=in_size,
            mode="ema",
            momentum=momentum,
            epsilon=eps,
            dtype=dtype,
            rngs=rngs,
        )
        self.spectral_linear = layers.SpectralNorm(
            nnx.Linear(in_size, hidden_size, dtype=dtype, rngs=rngs), rngs=rngs
        )
        self.norm2 = layers.BatchNorm(
            num_features=hidden_size,
            mode="ema",
            momentum=momentum,
            epsilon=eps,
            dtype=dtype,
            rngs=rngs,
        )
        self.linear1 = nnx.Linear(
            hidden_size, hidden_size, dtype=dtype, rngs=rngs
        )
        self.linear2 = nnx.Linear(
            hidden_size, out_size, dtype=dtype, rngs=rngs
        )

        if batch_norm != "ema":  # replace the norms, and nothing else
            self.norm1, self.norm2 = (
                layers.batch_norm(
                    size,
                    batch_norm,
                    momentum=momentum,
                    epsilon=eps,
                    dtype=dtype,
                    rngs=rngs,
                )
                for size in (in_size, hidden_size)
            )

    def __call__(
        self, x: Float[Array, "B in_size"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B out_size"]:
        del rngs
        x = self.norm1(x)
        x = self.spectral_linear(x)
        x = nnx.relu(x)
        x = self.norm2(x)
        x = self.linear1(x)
        x = nnx.relu(x)
        x = self.linear2(x)
        return x
