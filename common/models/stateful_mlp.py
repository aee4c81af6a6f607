"""The model of Equinox's example "Stateful operations (e.g. BatchNorm)"."""

import dataclasses
import functools
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
class StatefulMLP(Spec):
    """BatchNorm, SpectralNorm(Linear), relu, BatchNorm, Linear, relu, Linear.

    Attributes:
        in_size: the number of input features.
        hidden_size: the number of features of both hidden layers.
        out_size: the number of features of a prediction.
        batch_norm: the dialect; see `common.layers.batch_norm`.
        momentum: the decay rate of the running statistics.
        eps: added to the variance for numerical stability.

    References:
        Kidger and Garcia, "Equinox: neural networks in JAX via callable
        PyTrees and filtered transformations", 2021, arXiv:2111.00254. The
        example "Stateful operations (e.g. BatchNorm)" is in its
        documentation.
    """

    name: ClassVar[str] = "stateful_mlp"
    loss: ClassVar[str] = "mse"

    in_size: int = 3
    hidden_size: int = 32
    out_size: int = 3
    batch_norm: layers.BatchNormDialect = "ema"
    momentum: float = 0.99
    eps: float = 1e-5

    def __post_init__(self):
        require_int(self, "in_size", "hidden_size", "out_size")
        require_positive(self, "in_size", "hidden_size", "out_size", "eps")
        require_within(self, "momentum", 0, 1)
        require_choice(self, "batch_norm", layers.BATCH_NORM_DIALECTS)

    def optimizer(self):
        return optax.adam(3e-4)

    @property
    def inputs(self):
        return Shaped((self.in_size,))

    @property
    def min_batch_size(self):
        # The variance of a single example is zero.
        return 2

    @property
    def zero_gradient(self):
        # Where the relu is the identity on the whole batch, `norm2` subtracts
        # whatever this bias adds (with "ema", in the first step only).
        return frozenset({"spectral_linear.bias"})

    def variables(self):
        spectral = layers.linear_variables(self.in_size, self.hidden_size)
        spectral["weight"] = spectral["weight"]._replace(wide=True)
        linear1 = layers.linear_variables(self.hidden_size, self.hidden_size)
        linear2 = layers.linear_variables(self.hidden_size, self.out_size)
        norm1 = layers.batch_norm_variables(self.in_size, self.batch_norm)
        norm2 = layers.batch_norm_variables(self.hidden_size, self.batch_norm)
        return {
            **layers.named("norm1", norm1),
            **layers.named("spectral_linear", spectral),
            **layers.named(
                "spectral_linear",
                layers.spectral_norm_variables(spectral["weight"]),
            ),
            **layers.named("norm2", norm2),
            **layers.named("linear1", linear1),
            **layers.named("linear2", linear2),
        }

    def init(self, key):
        params, buffers = super().init(key)
        u, v = "spectral_linear.weight_u", "spectral_linear.weight_v"
        buffers[u], buffers[v] = layers.settle(
            params["spectral_linear.weight"], buffers[u], buffers[v]
        )
        return params, buffers

    def forward(self, params, buffers, xs, *, key, training):
        del key
        arrays = {"params": params, "buffers": buffers, "training": training}
        norm = functools.partial(
            layers.stateful,
            functools.partial(
                layers.batch_norm,
                dialect=self.batch_norm,
                momentum=self.momentum,
                eps=self.eps,
            ),
            **arrays,
        )

        x, norm1 = norm("norm1", xs)
        x, spectral_linear = layers.stateful(
            layers.spectral_linear, "spectral_linear", x, **arrays
        )
        x = layers.relu(x)
        x, norm2 = norm("norm2", x)
        x = layers.linear(x, **layers.within("linear1", params))
        x = layers.relu(x)
        x = layers.linear(x, **layers.within("linear2", params))
        return x, {**norm1, **spectral_linear, **norm2}
