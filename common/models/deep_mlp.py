"""A stack of identical blocks, used to measure the cost of depth."""

import dataclasses
from typing import ClassVar

import optax

from common import layers
from common.models.checks import (
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
    """

    name: ClassVar[str] = "deep_mlp"
    loss: ClassVar[str] = "mse"

    depth: int = 2
    size: int = 8
    batch_norm: layers.BatchNormDialect = "standard"
    momentum: float = 0.99
    eps: float = 1e-5

    def __post_init__(self):
        require_int(self, "depth", "size")
        require_positive(self, "depth", "size", "eps")
        require_within(self, "momentum", 0, 1)
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
        new_buffers = {}
        x = xs
        for i in range(self.depth):
            x = layers.linear(x, params[f"blocks.{i}.linear.weight"])
            x, norm = layers.stateful(
                layers.batch_norm,
                f"blocks.{i}.norm",
                x,
                params,
                buffers,
                dialect=self.batch_norm,
                momentum=self.momentum,
                eps=self.eps,
                training=training,
            )
            new_buffers |= norm
            x = layers.relu(x)
        return layers.linear(x, **layers.within("head", params)), new_buffers
