"""Submodules in a list: an `nnx.List`, whose items are part of the graph."""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from common.layers import BatchNormDialect
from impl_flax import layers


class Block(nnx.Module):
    """Linear, BatchNorm, relu."""

    def __init__(
        self,
        size: int,
        *,
        batch_norm: BatchNormDialect,
        momentum: float,
        eps: float,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.linear = nnx.Linear(
            size, size, use_bias=False, dtype=dtype, rngs=rngs
        )
        self.norm = nnx.BatchNorm(
            num_features=size,
            momentum=momentum,
            epsilon=eps,
            use_fast_variance=False,
            dtype=dtype,
            promote_dtype=layers.keep_dtypes,
            rngs=rngs,
        )
        if batch_norm != "standard":
            self.norm = layers.batch_norm(
                size,
                batch_norm,
                momentum=momentum,
                epsilon=eps,
                dtype=dtype,
                rngs=rngs,
            )

    def __call__(self, x: Float[Array, "B size"]) -> Float[Array, "B size"]:
        x = self.linear(x)
        x = self.norm(x)
        x = nnx.relu(x)
        return x


class DeepMLP(nnx.Module):
    """A stack of identical blocks, followed by a linear layer."""

    def __init__(
        self,
        depth: int = 2,
        size: int = 8,
        *,
        batch_norm: BatchNormDialect = "standard",
        momentum: float = 0.99,
        eps: float = 1e-5,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        self.blocks = nnx.List(
            [
                Block(
                    size,
                    batch_norm=batch_norm,
                    momentum=momentum,
                    eps=eps,
                    dtype=dtype,
                    rngs=rngs,
                )
                for _ in range(depth)
            ]
        )
        self.head = nnx.Linear(size, size, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B size"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B size"]:
        del rngs
        for block in self.blocks:
            x = block(x)
        return self.head(x)
