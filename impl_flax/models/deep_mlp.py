"""Submodules in a list: `nnx.List`, which marks its items as part of the
graph.
"""

from typing import Literal

from flax import nnx
from jaxtyping import Array, Float

from impl_flax import layers


class Block(nnx.Module):
    """Linear, BatchNorm, relu."""

    def __init__(
        self,
        size: int,
        *,
        batch_norm: Literal["ema", "batch", "standard", "torch"],
        momentum: float,
        eps: float,
        rngs: nnx.Rngs,
    ):
        self.linear = nnx.Linear(size, size, use_bias=False, rngs=rngs)
        self.norm = layers.batch_norm(
            size, batch_norm, momentum=momentum, epsilon=eps, rngs=rngs
        )

    def __call__(self, x: Float[Array, "B size"]) -> Float[Array, "B size"]:
        return nnx.relu(self.norm(self.linear(x)))


class DeepMLP(nnx.Module):
    """A stack of equal blocks and a Linear on top."""

    def __init__(
        self,
        depth: int = 2,
        size: int = 8,
        *,
        batch_norm: Literal["ema", "batch", "standard", "torch"] = "standard",
        momentum: float = 0.99,
        eps: float = 1e-5,
        rngs: nnx.Rngs,
    ):
        self.blocks = nnx.List(
            [
                Block(
                    size,
                    batch_norm=batch_norm,
                    momentum=momentum,
                    eps=eps,
                    rngs=rngs,
                )
                for _ in range(depth)
            ]
        )
        self.head = nnx.Linear(size, size, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B size"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B size"]:
        del rngs
        for block in self.blocks:
            x = block(x)
        return self.head(x)
