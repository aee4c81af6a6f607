"""A convolutional network with a batch norm of its own, and a flatten.

Both batch norms keep the unbiased variance, as PyTorch does. The left model
is channels first and returns its new state; the right one is channels last,
so that its first linear layer gets the features in another order.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Layout, Reshape, Transpose
from tests.pairs.bank import Fault, Pair, Sources

SIZE, CHANNELS, HIDDEN, CLASSES = 4, 3, 5, 2


class BatchNorm2d(eqx.Module):
    gamma: jax.Array
    beta: jax.Array
    running: eqx.nn.StateIndex
    decay: float = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    def __init__(self, channels, decay=0.1, epsilon=1e-5):
        self.gamma = jnp.ones(channels)
        self.beta = jnp.zeros(channels)
        self.running = eqx.nn.StateIndex(
            (jnp.zeros(channels), jnp.ones(channels))
        )
        self.decay = decay
        self.epsilon = epsilon

    def __call__(self, x, state, training):
        mean, var = state.get(self.running)
        if training:
            batch_mean = jax.lax.pmean(x.mean((1, 2)), "batch")
            squares = jnp.square(x - batch_mean[:, None, None])
            batch_var = jax.lax.pmean(squares.mean((1, 2)), "batch")
            count = jax.lax.psum(x[0].size, "batch")
            unbiased = batch_var * count / (count - 1)
            new_mean = (1 - self.decay) * mean + self.decay * batch_mean
            new_var = (1 - self.decay) * var + self.decay * unbiased
            state = state.set(self.running, (new_mean, new_var))
            mean, var = batch_mean, batch_var
        scale = self.gamma / jnp.sqrt(var + self.epsilon)
        x = (x - mean[:, None, None]) * scale[:, None, None]
        return x + self.beta[:, None, None], state


class ConvNet(eqx.Module):
    conv1: eqx.nn.Conv2d
    bn1: BatchNorm2d
    conv2: eqx.nn.Conv2d
    bn2: BatchNorm2d
    fc1: eqx.nn.Linear
    fc2: eqx.nn.Linear

    def __init__(self, key):
        keys = jr.split(key, 4)
        self.conv1 = eqx.nn.Conv2d(1, CHANNELS, 3, padding=1, key=keys[0])
        self.bn1 = BatchNorm2d(CHANNELS)
        self.conv2 = eqx.nn.Conv2d(
            CHANNELS, CHANNELS, 3, stride=2, padding=1, key=keys[1]
        )
        self.bn2 = BatchNorm2d(CHANNELS)
        self.fc1 = eqx.nn.Linear(4 * CHANNELS, HIDDEN, key=keys[2])
        self.fc2 = eqx.nn.Linear(HIDDEN, CLASSES, key=keys[3])

    def __call__(self, x, state, training=True):
        x, state = self.bn1(self.conv1(x), state, training)
        x = jax.nn.silu(x)
        x, state = self.bn2(self.conv2(x), state, training)
        x = jax.nn.silu(x).ravel()
        return self.fc2(jnp.tanh(self.fc1(x))), state


class TorchBatchNorm(nnx.Module):
    def __init__(self, features):
        self.scale = nnx.Param(jnp.ones(features))
        self.shift = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.variance = nnx.BatchStat(jnp.ones(features))

    def __call__(self, x, train):
        if train:
            axes = tuple(range(x.ndim - 1))
            mean, variance = x.mean(axes), x.var(axes)
            n = x.size // x.shape[-1]
            self.mean[...] = 0.9 * self.mean[...] + 0.1 * mean
            corrected = variance * (n / (n - 1))
            self.variance[...] = 0.9 * self.variance[...] + 0.1 * corrected
        else:
            mean, variance = self.mean[...], self.variance[...]
        normed = (x - mean) * jax.lax.rsqrt(variance + 1e-5)
        return normed * self.scale[...] + self.shift[...]


class CNN(nnx.Module):
    def __init__(self, rngs):
        self.features = nnx.List(
            [
                nnx.Conv(1, CHANNELS, (3, 3), padding="SAME", rngs=rngs),
                TorchBatchNorm(CHANNELS),
                nnx.Conv(CHANNELS, CHANNELS, (3, 3), 2, padding=1, rngs=rngs),
                TorchBatchNorm(CHANNELS),
            ]
        )
        self.classifier = nnx.Sequential(
            nnx.Linear(4 * CHANNELS, HIDDEN, rngs=rngs),
            jnp.tanh,
            nnx.Linear(HIDDEN, CLASSES, rngs=rngs),
        )

    def __call__(self, images, train: bool = False):
        h = images
        layers: Any = self.features
        for i in range(0, len(layers), 2):
            h = layers[i](h)
            h = nnx.swish(layers[i + 1](h, train))
        flat = h.reshape(h.shape[0], -1)
        return self.classifier(flat)


def left():
    return eqx.nn.make_with_state(ConvNet)(jr.key(0))


def right():
    return CNN(nnx.Rngs(1))


def left_call(native, xs, *, training, key=None):
    model, state = native

    def one(x):
        return model(x, state, training)

    return jax.vmap(one, axis_name="batch", out_axes=(0, None))(xs)


def inputs():
    return np.random.default_rng(0).normal(size=(4, 1, SIZE, SIZE))


def truth(take: Sources) -> dict[str, Layout]:
    made = {
        "classifier.layers.0.kernel": take("fc1.weight").then(
            Reshape((HIDDEN, CHANNELS, 2, 2)),
            Transpose((2, 3, 1, 0)),
            Reshape((4 * CHANNELS, HIDDEN)),
        ),
        "classifier.layers.0.bias": take("fc1.bias"),
        "classifier.layers.2.kernel": take("fc2.weight").then(
            Transpose((1, 0))
        ),
        "classifier.layers.2.bias": take("fc2.bias"),
    }
    for i in (0, 1):
        conv, norm = f"features.{2 * i}", f"features.{2 * i + 1}"
        made[f"{conv}.kernel"] = take(f"conv{i + 1}.weight").then(
            Transpose((2, 3, 1, 0))
        )
        made[f"{conv}.bias"] = take(f"conv{i + 1}.bias").then(
            Reshape((CHANNELS,))
        )
        made[f"{norm}.scale"] = take(f"bn{i + 1}.gamma")
        made[f"{norm}.shift"] = take(f"bn{i + 1}.beta")
        made[f"{norm}.mean"] = take(f"bn{i + 1}.running.0")
        made[f"{norm}.variance"] = take(f"bn{i + 1}.running.1")
    return made


PAIRS = (
    Pair(
        "own batch norm and a flatten in another order",
        __name__,
        left,
        right,
        inputs,
        truth,
        left_call=left_call,
        right_inputs=lambda xs: xs.transpose(0, 2, 3, 1),
        updates=True,
        faults=(
            Fault(
                "biased variance",
                "right",
                "corrected = variance * (n / (n - 1))",
                "corrected = variance",
                line="0.9 * self.variance[...] + 0.1 * corrected",
                training=True,
            ),
            Fault(
                "stale mean",
                "left",
                "(1 - self.decay) * mean + self.decay * batch_mean",
                "mean",
                line="state.set(self.running, (new_mean, new_var))",
                other="self.mean[...] = 0.9 * self.mean[...] + 0.1 * mean",
                training=True,
            ),
            Fault(
                "eps",
                "right",
                "jax.lax.rsqrt(variance + 1e-5)",
                "jax.lax.rsqrt(variance + 1e-3)",
            ),
            Fault(
                "eps outside of the square root",
                "left",
                "self.gamma / jnp.sqrt(var + self.epsilon)",
                "self.gamma / (jnp.sqrt(var) + self.epsilon)",
            ),
            Fault(
                "relu instead of silu",
                "left",
                "x = jax.nn.silu(x).ravel()",
                "x = jax.nn.relu(x).ravel()",
            ),
        ),
    ),
)
