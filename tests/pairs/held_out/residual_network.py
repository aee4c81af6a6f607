"""A ResNet with the stock batch norms and their statistics; held out.

The two stock batch norms agree in inference, with their statistics as
inputs. Residual blocks are nested in lists on the left, and named on the
right, where each block counts its layers from 0.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Layout
from tests.pairs.bank import Fault, Pair, Sources, convolution, linear, norm

SIZE, CHANNELS, CLASSES = 6, (3, 4), 3


def batch_norm(channels):
    return eqx.nn.BatchNorm(channels, "batch", mode="ema", eps=1e-5)


class BasicBlock(eqx.Module):
    conv1: eqx.nn.Conv2d
    bn1: eqx.nn.BatchNorm
    conv2: eqx.nn.Conv2d
    bn2: eqx.nn.BatchNorm
    downsample: eqx.nn.Sequential | None

    def __init__(self, n_in, n_out, stride, key):
        k1, k2, k3 = jr.split(key, 3)
        self.conv1 = eqx.nn.Conv2d(
            n_in, n_out, 3, stride, 1, use_bias=False, key=k1
        )
        self.bn1 = batch_norm(n_out)
        self.conv2 = eqx.nn.Conv2d(
            n_out, n_out, 3, 1, 1, use_bias=False, key=k2
        )
        self.bn2 = batch_norm(n_out)
        self.downsample = None
        if stride != 1 or n_in != n_out:
            shortcut = eqx.nn.Conv2d(
                n_in, n_out, 1, stride, use_bias=False, key=k3
            )
            self.downsample = eqx.nn.Sequential([shortcut, batch_norm(n_out)])

    def __call__(self, x, state):
        y, state = self.bn1(self.conv1(x), state)
        y, state = self.bn2(self.conv2(jax.nn.relu(y)), state)
        if self.downsample is not None:
            x, state = self.downsample(x, state)
        return jax.nn.relu(x + y), state


class ResNet(eqx.Module):
    conv1: eqx.nn.Conv2d
    bn1: eqx.nn.BatchNorm
    layers: list[list[BasicBlock]]
    fc: eqx.nn.Linear

    def __init__(self, key):
        keys = jr.split(key, 6)
        a, b = CHANNELS
        self.conv1 = eqx.nn.Conv2d(
            2, a, 3, padding=1, use_bias=False, key=keys[0]
        )
        self.bn1 = batch_norm(a)
        self.layers = [
            [BasicBlock(a, a, 1, keys[1]), BasicBlock(a, a, 1, keys[2])],
            [BasicBlock(a, b, 2, keys[3]), BasicBlock(b, b, 1, keys[4])],
        ]
        self.fc = eqx.nn.Linear(b, CLASSES, key=keys[5])

    def __call__(self, x, state):
        x, state = self.bn1(self.conv1(x), state)
        x = jax.nn.relu(x)
        for stage in self.layers:
            for block in stage:
                x, state = block(x, state)
        return self.fc(jnp.mean(x, axis=(1, 2))), state


class ConvNorm(nnx.Module):
    def __init__(self, n_in, n_out, kernel=3, stride=1, *, rngs):
        self.conv = nnx.Conv(
            n_in,
            n_out,
            (kernel, kernel),
            stride,
            padding=kernel // 2,
            use_bias=False,
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(n_out, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.conv(x))


class Residual(nnx.Module):
    def __init__(self, n_in, n_out, stride=1, *, rngs):
        self.body = nnx.List(
            [
                ConvNorm(n_in, n_out, 3, stride, rngs=rngs),
                ConvNorm(n_out, n_out, rngs=rngs),
            ]
        )
        if n_in == n_out:
            self.shortcut = nnx.identity
        else:
            self.shortcut = ConvNorm(n_in, n_out, 1, stride, rngs=rngs)

    def __call__(self, x):
        y = nnx.relu(self.body[0](x))
        y = self.body[1](y)
        return nnx.relu(y + self.shortcut(x))


class Classifier(nnx.Module):
    def __init__(self, rngs):
        a, b = CHANNELS
        self.layer0 = ConvNorm(2, a, rngs=rngs)
        self.layer1 = Residual(a, a, rngs=rngs)
        self.layer2 = Residual(a, a, rngs=rngs)
        self.layer3 = Residual(a, b, 2, rngs=rngs)
        self.layer4 = Residual(b, b, rngs=rngs)
        self.layer5 = nnx.Linear(b, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.layer0(x))
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = getattr(self, name)(x)
        return self.layer5(x.mean((1, 2)))


def left():
    return eqx.nn.make_with_state(ResNet)(jr.key(0))


def right():
    return Classifier(nnx.Rngs(1))


def inputs():
    return np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 2))


def truth(take: Sources) -> dict[str, Layout]:
    made = linear(take, "fc", "layer5")
    layers = {("conv1", "bn1"): "layer0"}
    for i in range(4):
        a, b = f"layers.{i // 2}.{i % 2}", f"layer{i + 1}"
        layers[f"{a}.conv1", f"{a}.bn1"] = f"{b}.body.0"
        layers[f"{a}.conv2", f"{a}.bn2"] = f"{b}.body.1"
    down = "layers.1.0.downsample.layers"
    layers[f"{down}.0", f"{down}.1"] = "layer3.shortcut"
    for (old, bn), new in layers.items():
        made |= convolution(take, old, f"{new}.conv", bias=False)
        made |= norm(take, bn, f"{new}.norm")
        for i, name in enumerate(("mean", "var")):
            made[f"{new}.norm.{name}"] = take(f"{bn}.ema_state_index.{i}")
    return made


PAIRS = (
    Pair(
        "residual network with the stock batch norms",
        __name__,
        left,
        right,
        inputs,
        truth,
        left_inputs=lambda xs: xs.transpose(0, 3, 1, 2),
        faults=(
            Fault(
                "eps",
                "left",
                'eqx.nn.BatchNorm(channels, "batch", mode="ema", eps=1e-5)',
                'eqx.nn.BatchNorm(channels, "batch", mode="ema", eps=1e-3)',
                line="self.bn1(self.conv1(x), state)",
            ),
            Fault(
                "activation before the sum",
                "right",
                "return nnx.relu(y + self.shortcut(x))",
                "return nnx.relu(y) + self.shortcut(x)",
            ),
            Fault(
                "missing shortcut",
                "left",
                "return jax.nn.relu(x + y), state",
                "return jax.nn.relu(y), state",
            ),
            Fault(
                "maximum instead of mean",
                "right",
                "return self.layer5(x.mean((1, 2)))",
                "return self.layer5(x.max((1, 2)))",
            ),
        ),
    ),
)
