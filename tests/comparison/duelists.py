"""Two small modules whose arrays correspond, with a fault if wanted."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx

from common.comparison.mapping import Mapping
from common.layouts import Layout, Transpose
from common.native import NativeModel

XS = np.random.default_rng(0).normal(size=(4, 3))
YS = np.random.default_rng(1).normal(size=(4, 2))
LABELS = ("one", "other")
MAPPING = Mapping(
    {
        "kernel": Layout.of("w", (2, 3), Transpose((1, 0))),
        "total": Layout.of("seen", (2,)),
    },
    "by hand",
)


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is wrong with the right module; nothing by default."""

    scale: float = 1.0
    momentum: float = 1.0
    overwrites: bool = False


class Left(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(jnp.arange(6.0).reshape(2, 3) / 6)
        self.seen = nnx.BatchStat(jnp.zeros(2))

    def __call__(self, xs, train=False):
        y = xs @ self.w[...].T
        if train:
            self.seen[...] = self.seen[...] + y.mean(0)
        return jnp.tanh(y)


class Right(nnx.Module):
    def __init__(self, fault):
        self.kernel = nnx.Param(jnp.ones((3, 2)))
        self.total = nnx.BatchStat(jnp.zeros(2))
        self.count = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.fault = fault

    def __call__(self, xs, train=False):
        y = xs @ self.kernel[...]
        if train or self.fault.overwrites:
            new = self.fault.momentum * y.mean(0)
            self.total[...] = self.total[...] + new
        return jnp.tanh(y * self.fault.scale)


def models(**fault):
    """Makes the left model, and the right one with a fault."""
    return NativeModel(Left()), NativeModel(Right(Fault(**fault)))


def loss(outputs, ys):
    """The mean squared error."""
    return jnp.mean((outputs - ys) ** 2)
