"""A one-dimensional convolutional network with dropout.

The left model takes a positional key and keeps dropout in a field that may be
`None`; its depthwise convolution is channels first. The right model takes
`train=` in its call, and hands it down.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Layout, Reshape
from tests.pairs.bank import Fault, Pair, Sources, convolution, linear, norm

LENGTH, WIDTH, GROUPS, CLASSES = 8, 6, 3, 4


class Stage(eqx.Module):
    depthwise: eqx.nn.Conv1d
    pointwise: eqx.nn.Conv1d
    norm: eqx.nn.GroupNorm
    dropout: eqx.nn.Dropout | None

    def __init__(self, dilation, p, *, key):
        k1, k2 = jr.split(key)
        self.depthwise = eqx.nn.Conv1d(
            WIDTH,
            WIDTH,
            3,
            padding=dilation,
            dilation=dilation,
            groups=WIDTH,
            use_bias=False,
            key=k1,
        )
        self.pointwise = eqx.nn.Conv1d(WIDTH, WIDTH, 1, key=k2)
        self.norm = eqx.nn.GroupNorm(GROUPS, WIDTH)
        self.dropout = eqx.nn.Dropout(p) if p else None

    def __call__(self, x, key):
        y = self.pointwise(self.depthwise(x))
        y = jax.nn.leaky_relu(self.norm(y), 0.1)
        if self.dropout is not None:
            y = self.dropout(y, key=key)
        return x + y


class AudioNet(eqx.Module):
    stem: eqx.nn.Conv1d
    stages: tuple[Stage, ...]
    classifier: eqx.nn.Linear

    def __init__(self, key):
        k1, k2, k3, k4 = jr.split(key, 4)
        self.stem = eqx.nn.Conv1d(2, WIDTH, 3, padding="SAME", key=k1)
        self.stages = (Stage(1, 0.0, key=k2), Stage(2, 0.1, key=k3))
        self.classifier = eqx.nn.Linear(2 * WIDTH, CLASSES, key=k4)

    def __call__(self, x, key=None):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x, key)
        pooled = jnp.concatenate([x.mean(axis=1), x.max(axis=1)])
        return jax.nn.log_softmax(self.classifier(pooled))


class SeparableConv(nnx.Module):
    def __init__(self, features, dilation, *, rngs):
        self.spatial = nnx.Conv(
            features,
            features,
            kernel_size=3,
            kernel_dilation=dilation,
            feature_group_count=features,
            use_bias=False,
            rngs=rngs,
        )
        self.mix = nnx.Linear(features, features, rngs=rngs)

    def __call__(self, x):
        return self.mix(self.spatial(x))


class ResidualUnit(nnx.Module):
    def __init__(self, features, dilation, rate, *, rngs):
        self.conv = SeparableConv(features, dilation, rngs=rngs)
        self.gn = nnx.GroupNorm(
            features, num_groups=GROUPS, epsilon=1e-5, rngs=rngs
        )
        self.drop = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x, *, train):
        y = self.gn(self.conv(x))
        y = jnp.where(y > 0, y, 0.1 * y)
        return self.drop(y, deterministic=not train) + x


class SpeechCommands(nnx.Module):
    def __init__(self, rngs):
        self.conv0 = nnx.Conv(2, WIDTH, (3,), rngs=rngs)
        self.unit1 = ResidualUnit(WIDTH, 1, 0.0, rngs=rngs)
        self.unit2 = ResidualUnit(WIDTH, 2, 0.1, rngs=rngs)
        self.out = nnx.Linear(2 * WIDTH, CLASSES, rngs=rngs)

    def __call__(self, waves, train: bool = True):
        x = self.conv0(waves)
        x = self.unit1(x, train=train)
        x = self.unit2(x, train=train)
        stats = jnp.concatenate([jnp.mean(x, 1), jnp.max(x, 1)], axis=-1)
        logits = self.out(stats)
        return logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)


def left():
    return AudioNet(jr.key(0))


def right():
    return SpeechCommands(nnx.Rngs(1))


def inputs():
    return np.random.default_rng(0).normal(size=(3, LENGTH, 2))


def truth(take: Sources) -> dict[str, Layout]:
    made = convolution(take, "stem", "conv0")
    made |= linear(take, "classifier", "out")
    square = Reshape((WIDTH, WIDTH))
    for i in (0, 1):
        a, b = f"stages.{i}", f"unit{i + 1}"
        made |= convolution(
            take, f"{a}.depthwise", f"{b}.conv.spatial", bias=False
        )
        made |= norm(take, f"{a}.norm", f"{b}.gn")
        mix = convolution(take, f"{a}.pointwise", f"{b}.conv.mix")
        kernel = mix[f"{b}.conv.mix.kernel"].then(square)
        made |= mix | {f"{b}.conv.mix.kernel": kernel}
    return made


PAIRS = (
    Pair(
        "depthwise convolutions with dropout",
        __name__,
        left,
        right,
        inputs,
        truth,
        left_inputs=lambda xs: xs.transpose(0, 2, 1),
        faults=(
            Fault(
                "another slope",
                "left",
                "jax.nn.leaky_relu(self.norm(y), 0.1)",
                "jax.nn.leaky_relu(self.norm(y), 0.01)",
            ),
            Fault(
                "other groups",
                "left",
                "eqx.nn.GroupNorm(GROUPS, WIDTH)",
                "eqx.nn.GroupNorm(2, WIDTH)",
                line="self.norm(y)",
            ),
            Fault(
                "no dilation",
                "right",
                "kernel_dilation=dilation",
                "kernel_dilation=1",
                line="self.spatial(x)",
            ),
            Fault(
                "dropout in inference",
                "right",
                "self.drop(y, deterministic=not train)",
                "self.drop(y, deterministic=False)",
                line="self.drop(y, deterministic=False)",
            ),
            Fault(
                "minimum instead of maximum",
                "right",
                "jnp.max(x, 1)",
                "jnp.min(x, 1)",
                line="jnp.min(x, 1)",
            ),
        ),
    ),
)
