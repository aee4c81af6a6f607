"""Submodules in an `nnx.List`, whose items are part of the graph, or stacked.

With `scan`, `nnx.vmap` stacks the blocks and `nnx.scan` runs them, so that the
program contains the block once.
"""

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
    """A stack of identical blocks, followed by a linear layer.

    Attributes:
        blocks: a list, or with `scan` one block whose arrays are stacked.
        head: the last layer.
        scan: whether the blocks are stacked, and run in an `nnx.scan`.
        remat: whether the backward pass computes the insides of each block
            again instead of keeping them.
    """

    def __init__(
        self,
        depth: int = 2,
        size: int = 8,
        *,
        batch_norm: BatchNormDialect = "standard",
        momentum: float = 0.99,
        eps: float = 1e-5,
        scan: bool = False,
        remat: bool = False,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        def make_block(rngs):
            return Block(
                size,
                batch_norm=batch_norm,
                momentum=momentum,
                eps=eps,
                dtype=dtype,
                rngs=rngs,
            )

        if scan:
            make_blocks = nnx.split_rngs(splits=depth)(nnx.vmap(make_block))
            self.blocks = make_blocks(rngs)
        else:
            self.blocks = nnx.List([make_block(rngs) for _ in range(depth)])
        self.head = nnx.Linear(size, size, dtype=dtype, rngs=rngs)
        self.scan = scan
        self.remat = remat

    def __call__(
        self, x: Float[Array, "B size"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B size"]:
        del rngs
        call = nnx.remat(Block.__call__) if self.remat else Block.__call__
        if isinstance(self.blocks, nnx.List):
            for block in self.blocks:
                x = call(block, x)
        else:
            scan = nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
            x = scan(call)(self.blocks, x)
        return self.head(x)
