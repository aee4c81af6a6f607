"""Mutable state: a stateful layer updates its own `nnx.BatchStat`s in place.

A model acts on a batch; BatchNorm takes its statistics over all axes but the
last.
"""

from typing import Literal

from flax import nnx
from jaxtyping import Array, Float

from impl_flax import layers


class StatefulMLP(nnx.Module):
    """A mish-mash of stateful and stateless layers, for demonstration."""

    def __init__(
        self,
        in_size: int = 3,
        hidden_size: int = 32,
        out_size: int = 3,
        *,
        batch_norm: Literal["ema", "batch", "standard", "torch"] = "ema",
        momentum: float = 0.99,
        eps: float = 1e-5,
        rngs: nnx.Rngs,
    ):
        norm = {"momentum": momentum, "epsilon": eps, "rngs": rngs}
        self.norm1 = layers.batch_norm(in_size, batch_norm, **norm)
        self.spectral_linear = layers.SpectralNorm(
            nnx.Linear(in_size, hidden_size, rngs=rngs), rngs=rngs
        )
        self.norm2 = layers.batch_norm(hidden_size, batch_norm, **norm)
        self.linear1 = nnx.Linear(hidden_size, hidden_size, rngs=rngs)
        self.linear2 = nnx.Linear(hidden_size, out_size, rngs=rngs)

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
