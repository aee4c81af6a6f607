"""A small convolutional network for scikit-learn's handwritten digits."""

import dataclasses
import functools
from typing import ClassVar

import jax.random as jr
import optax

from common import layers
from common.models.checks import (
    require_choice,
    require_int,
    require_ints,
    require_positive,
    require_within,
)
from common.protocol import Shaped, Spec


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitsCNN(Spec):
    """[Conv, BatchNorm, relu] twice, max-pool, Dropout, Linear.

    The convolutions are 3 x 3 and preserve the 8 x 8 size. They have no bias,
    because the BatchNorm after each of them subtracts the mean.

    Attributes:
        channels: the numbers of output channels of the two convolutions.
        classes: the number of classes.
        dropout: the dropout probability of a feature.
        batch_norm: the dialect; see `common.layers.batch_norm`.
        momentum: the decay rate of the running statistics.
        eps: added to the variance for numerical stability.
    """

    name: ClassVar[str] = "digits_cnn"
    loss: ClassVar[str] = "cross_entropy"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    data: ClassVar[str] = "digits"

    channels: tuple[int, int] = (16, 32)
    classes: int = 10
    dropout: float = 0.25
    batch_norm: layers.BatchNormDialect = "standard"
    momentum: float = 0.9
    eps: float = 1e-5

    def __post_init__(self):
        require_int(self, "classes")
        require_ints(self, "channels", length=2)
        require_positive(self, "channels", "classes", "eps")
        require_within(self, "momentum", 0, 1)
        require_within(self, "dropout", 0, 1)
        require_choice(self, "batch_norm", layers.BATCH_NORM_DIALECTS)

    def optimizer(self):
        return optax.adam(3e-3)

    @property
    def inputs(self):
        return Shaped((8, 8, 1))

    def variables(self):
        c1, c2 = self.channels
        conv1 = layers.conv_variables(1, c1, (3, 3), bias=False)
        conv2 = layers.conv_variables(c1, c2, (3, 3), bias=False)
        norm1 = layers.batch_norm_variables(c1, self.batch_norm)
        norm2 = layers.batch_norm_variables(c2, self.batch_norm)
        linear = layers.linear_variables(c2 * 4 * 4, self.classes)
        return {
            **layers.named("conv1", conv1),
            **layers.named("norm1", norm1),
            **layers.named("conv2", conv2),
            **layers.named("norm2", norm2),
            **layers.named("linear", linear),
        }

    def forward(self, params, buffers, xs, *, key, training):
        norm = functools.partial(
            layers.stateful,
            functools.partial(
                layers.batch_norm,
                dialect=self.batch_norm,
                momentum=self.momentum,
                eps=self.eps,
            ),
            params=params,
            buffers=buffers,
            training=training,
        )

        x = layers.conv(xs, params["conv1.weight"], padding=1)
        x, norm1 = norm("norm1", x)
        x = layers.relu(x)
        x = layers.conv(x, params["conv2.weight"], padding=1)
        x, norm2 = norm("norm2", x)
        x = layers.relu(x)
        x = layers.max_pool(x, (2, 2), stride=2)
        x = layers.flatten(x)
        if training and key is not None:
            (dropout_key,) = jr.split(key, 1)
            x = layers.dropout(x, dropout_key, self.dropout)
        x = layers.linear(x, **layers.within("linear", params))
        return x, {**norm1, **norm2}
