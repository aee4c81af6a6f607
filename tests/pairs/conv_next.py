"""A ConvNeXt: 1x1 convolutions against linear layers, and layer scale.

The left model is channels first throughout, with a norm over channels of its
own. The right model is channels last, with stock layers.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Layout, Reshape
from tests.pairs.bank import Fault, Pair, Sources, convolution, linear, norm

SIZE, DIMS, CLASSES = 8, (4, 6), 3


class ChannelNorm(eqx.Module):
    weight: jax.Array
    bias: jax.Array

    def __init__(self, channels):
        self.weight = jnp.ones((channels, 1, 1))
        self.bias = jnp.zeros((channels, 1, 1))

    def __call__(self, x, key=None):
        x = x - jnp.mean(x, axis=0)
        x = x * jax.lax.rsqrt(jnp.mean(x**2, axis=0) + 1e-6)
        return self.weight * x + self.bias


class NextBlock(eqx.Module):
    dwconv: eqx.nn.Conv2d
    norm: ChannelNorm
    pwconv1: eqx.nn.Conv2d
    pwconv2: eqx.nn.Conv2d
    gamma: jax.Array
    drop_path: None = None

    def __init__(self, dim, key):
        keys = jr.split(key, 3)
        self.dwconv = eqx.nn.Conv2d(
            dim, dim, 3, padding=1, groups=dim, key=keys[0]
        )
        self.norm = ChannelNorm(dim)
        self.pwconv1 = eqx.nn.Conv2d(dim, 2 * dim, 1, key=keys[1])
        self.pwconv2 = eqx.nn.Conv2d(2 * dim, dim, 1, key=keys[2])
        self.gamma = jnp.full((dim, 1, 1), 0.5)

    def __call__(self, x):
        y = self.norm(self.dwconv(x))
        y = self.pwconv2(jax.nn.gelu(self.pwconv1(y), approximate=False))
        return x + self.gamma * y


class ConvNeXt(eqx.Module):
    downsample: list[eqx.nn.Sequential]
    stages: list[list[NextBlock]]
    head: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __init__(self, key):
        k1, k2, k3, k4, k5, k6 = jr.split(key, 6)
        self.downsample = [
            eqx.nn.Sequential(
                [eqx.nn.Conv2d(3, DIMS[0], 2, 2, key=k1), ChannelNorm(DIMS[0])]
            ),
            eqx.nn.Sequential(
                [ChannelNorm(DIMS[0]), eqx.nn.Conv2d(*DIMS, 2, 2, key=k2)]
            ),
        ]
        self.stages = [
            [NextBlock(DIMS[0], k3)],
            [NextBlock(DIMS[1], k4), NextBlock(DIMS[1], k5)],
        ]
        self.norm = eqx.nn.LayerNorm(DIMS[1], eps=1e-6)
        self.head = eqx.nn.Linear(DIMS[1], CLASSES, key=k6)

    def __call__(self, x):
        for downsample, stage in zip(
            self.downsample, self.stages, strict=True
        ):
            x = downsample(x)
            for block in stage:
                x = block(x)
        return self.head(self.norm(x.mean((-2, -1))))


class LayerScale(nnx.Module):
    def __init__(self, features):
        self.scale = nnx.Param(jnp.full((features,), 1e-2))

    def __call__(self, x):
        return x * self.scale[...]


class ConvBlock(nnx.Module):
    def __init__(self, features, rngs):
        self.depthwise = nnx.Conv(
            features,
            features,
            (3, 3),
            feature_group_count=features,
            rngs=rngs,
        )
        self.layers = nnx.Sequential(
            nnx.LayerNorm(features, rngs=rngs),
            nnx.Linear(features, 2 * features, rngs=rngs),
            exact_gelu,
            nnx.Linear(2 * features, features, rngs=rngs),
            LayerScale(features),
        )

    def __call__(self, x):
        return self.layers(self.depthwise(x)) + x


def exact_gelu(x):
    return nnx.gelu(x, approximate=False)


class Network(nnx.Module):
    def __init__(self, rngs):
        a, b = DIMS

        def halve(n_in, n_out):
            return nnx.Conv(
                n_in, n_out, (2, 2), strides=2, padding="VALID", rngs=rngs
            )

        self.stem_conv = halve(3, a)
        self.stem_norm = nnx.LayerNorm(a, rngs=rngs)
        self.stage1 = ConvBlock(a, rngs)
        self.down_norm = nnx.LayerNorm(a, rngs=rngs)
        self.down_conv = halve(a, b)
        self.stage2 = nnx.Sequential(ConvBlock(b, rngs), ConvBlock(b, rngs))
        self.final = nnx.LayerNorm(b, rngs=rngs)
        self.logits = nnx.Linear(b, CLASSES, rngs=rngs)

    def __call__(self, images):
        x = self.stem_norm(self.stem_conv(images))
        x = self.stage1(x)
        x = self.down_conv(self.down_norm(x))
        x = self.stage2(x)
        x = x.mean(axis=(1, 2))
        return self.logits(self.final(x))


def left():
    return ConvNeXt(jr.key(0))


def right():
    return Network(nnx.Rngs(1))


def inputs():
    return np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 3))


def truth(take: Sources) -> dict[str, Layout]:
    def flat(x: Layout) -> Layout:
        return x.then(Reshape((x.shape[0],)))

    made = {}
    for old, new in {
        "downsample.0.layers.0": "stem_conv",
        "downsample.1.layers.1": "down_conv",
    }.items():
        made |= convolution(take, old, new)
    for old, new in {
        "downsample.0.layers.1": "stem_norm",
        "downsample.1.layers.0": "down_norm",
    }.items():
        made[f"{new}.scale"] = flat(take(f"{old}.weight"))
        made[f"{new}.bias"] = flat(take(f"{old}.bias"))
    for a, b in {
        "stages.0.0": "stage1",
        "stages.1.0": "stage2.layers.0",
        "stages.1.1": "stage2.layers.1",
    }.items():
        c = f"{b}.layers.layers"
        made |= convolution(take, f"{a}.dwconv", f"{b}.depthwise")
        made[f"{c}.0.scale"] = flat(take(f"{a}.norm.weight"))
        made[f"{c}.0.bias"] = flat(take(f"{a}.norm.bias"))
        made[f"{c}.4.scale"] = flat(take(f"{a}.gamma"))
        for i, name in ((1, "pwconv1"), (3, "pwconv2")):
            made |= convolution(take, f"{a}.{name}", f"{c}.{i}")
            kernel = made[f"{c}.{i}.kernel"]
            made[f"{c}.{i}.kernel"] = kernel.then(Reshape(kernel.shape[2:]))
    return made | norm(take, "norm", "final") | linear(take, "head", "logits")


PAIRS = (
    Pair(
        "ConvNeXt, 1x1 convolutions against linear layers",
        __name__,
        left,
        right,
        inputs,
        truth,
        left_inputs=lambda xs: xs.transpose(0, 3, 1, 2),
        faults=(
            Fault(
                "tanh gelu",
                "left",
                "jax.nn.gelu(self.pwconv1(y), approximate=False)",
                "jax.nn.gelu(self.pwconv1(y), approximate=True)",
            ),
            Fault(
                "missing layer scale",
                "left",
                "return x + self.gamma * y",
                "return x + y",
            ),
            Fault(
                "eps of the norms",
                "left",
                "jnp.mean(x**2, axis=0) + 1e-6)",
                "jnp.mean(x**2, axis=0) + 1e-4)",
            ),
            Fault(
                "maximum instead of mean",
                "right",
                "x = x.mean(axis=(1, 2))",
                "x = x.max(axis=(1, 2))",
            ),
        ),
    ),
)
