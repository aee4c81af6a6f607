"""A stack of identical blocks, used to measure the cost of depth."""

import dataclasses
import operator
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from common import layers
from common.models.checks import (
    require_bool,
    require_choice,
    require_int,
    require_positive,
    require_within,
)
from common.protocol import Shaped, Spec


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepMLP(Spec):
    """`depth` blocks of Linear, BatchNorm and relu, followed by a Linear.

    The linear layer of a block has no bias, because the BatchNorm after it
    subtracts the mean.

    Attributes:
        depth: the number of blocks.
        size: the number of features of inputs, hidden layers and predictions.
        batch_norm: the dialect; see `common.layers.batch_norm`.
        momentum: the decay rate of the running statistics.
        eps: added to the variance for numerical stability.
        scan: whether one compiled block runs all of them in a loop, so that
            compiling does not take longer for more blocks. Each library
            stacks the arrays of the blocks; their canonical names do not
            change.
        remat: whether the backward pass computes the insides of each block
            again, so that only their inputs are kept.
    """

    name: ClassVar[str] = "deep_mlp"
    loss: ClassVar[str] = "mse"
    program_fields: ClassVar[tuple[str, ...]] = ("scan", "remat")

    depth: int = 2
    size: int = 8
    batch_norm: layers.BatchNormDialect = "standard"
    momentum: float = 0.99
    eps: float = 1e-5
    scan: bool = False
    remat: bool = False

    def __post_init__(self):
        require_int(self, "depth", "size")
        require_positive(self, "depth", "size", "eps")
        require_within(self, "momentum", 0, 1)
        require_bool(self, "scan", "remat")
        require_choice(self, "batch_norm", layers.BATCH_NORM_DIALECTS)

    def optimizer(self):
        return optax.adam(1e-3)

    @property
    def inputs(self):
        return Shaped((self.size,))

    @property
    def min_batch_size(self):
        # The variance of a single example is zero.
        return 2

    def variables(self):
        variables = {}
        for i in range(self.depth):
            block = f"blocks.{i}"
            linear = layers.linear_variables(self.size, self.size, bias=False)
            norm = layers.batch_norm_variables(self.size, self.batch_norm)
            variables |= layers.named(f"{block}.linear", linear)
            variables |= layers.named(f"{block}.norm", norm)
        head = layers.linear_variables(self.size, self.size)
        return variables | layers.named("head", head)

    def forward(self, params, buffers, xs, *, key, training):
        del key

        def block(x, arrays):
            x = layers.linear(x, arrays["linear.weight"])
            x, norm = layers.batch_norm(
                x,
                **layers.within("norm", arrays),
                dialect=self.batch_norm,
                momentum=self.momentum,
                eps=self.eps,
                training=training,
            )
            return layers.relu(x), layers.named("norm", norm)

        if self.remat:
            block = jax.checkpoint(block)
        x, new_buffers = self._call_blocks(block, xs, {**params, **buffers})
        return layers.linear(x, **layers.within("head", params)), new_buffers

    def _call_blocks(self, block, x, arrays):
        """Calls all blocks, and returns their new buffers by name."""
        names = [f"blocks.{i}" for i in range(self.depth)]
        blocks = [layers.within(name, arrays) for name in names]
        if self.scan:
            stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *blocks)
            x, stacked = jax.lax.scan(block, x, stacked)
            found = [
                jax.tree.map(operator.itemgetter(i), stacked)
                for i in range(self.depth)
            ]
        else:
            found = []
            for arrays in blocks:
                x, new = block(x, arrays)
                found.append(new)
        new_buffers = {}
        for name, new in zip(names, found, strict=True):
            new_buffers |= layers.named(name, new)
        return x, new_buffers
