"""A Mixer: tokens by channels on the left, channels by tokens on the right.

The left model keeps channels first, mixes tokens before transposing, and
normalizes over both axes with a two-dimensional scale, as the example in
Equinox's documentation does. The right model has a norm of its own.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Layout, Transpose
from tests.pairs.bank import Fault, Pair, Sources, convolution, linear

SIZE, PATCH, WIDTH, TOKENS, CLASSES = 6, 2, 5, 9, 3


class MixerBlock(eqx.Module):
    patch_mixer: eqx.nn.MLP
    hidden_mixer: eqx.nn.MLP
    norm1: eqx.nn.LayerNorm
    norm2: eqx.nn.LayerNorm

    def __init__(self, key):
        k1, k2 = jr.split(key)
        self.patch_mixer = eqx.nn.MLP(
            TOKENS, TOKENS, 7, depth=1, activation=jax.nn.gelu, key=k1
        )
        self.hidden_mixer = eqx.nn.MLP(
            WIDTH, WIDTH, 11, depth=1, activation=jax.nn.gelu, key=k2
        )
        self.norm1 = eqx.nn.LayerNorm((WIDTH, TOKENS))
        self.norm2 = eqx.nn.LayerNorm((TOKENS, WIDTH))

    def __call__(self, y):
        y = y + jax.vmap(self.patch_mixer)(self.norm1(y))
        y = jnp.transpose(y, (1, 0))
        y = y + jax.vmap(self.hidden_mixer)(self.norm2(y))
        return jnp.transpose(y, (1, 0))


class Mixer2d(eqx.Module):
    conv_in: eqx.nn.Conv2d
    conv_out: eqx.nn.Linear
    blocks: list[MixerBlock]
    norm: eqx.nn.LayerNorm

    def __init__(self, key):
        k1, k2, *keys = jr.split(key, 4)
        self.conv_in = eqx.nn.Conv2d(1, WIDTH, PATCH, PATCH, key=k1)
        self.conv_out = eqx.nn.Linear(WIDTH, CLASSES, key=k2)
        self.blocks = [MixerBlock(key) for key in keys]
        self.norm = eqx.nn.LayerNorm((WIDTH, TOKENS))

    def __call__(self, image):
        y = self.conv_in(image).reshape(WIDTH, TOKENS)
        for block in self.blocks:
            y = block(y)
        return self.conv_out(self.norm(y).mean(axis=-1))


class Norm(nnx.Module):
    def __init__(self, *shape):
        self.w = nnx.Param(jnp.ones(shape))
        self.b = nnx.Param(jnp.zeros(shape))

    def __call__(self, x):
        mean = x.mean((-2, -1), keepdims=True)
        std = jnp.sqrt(x.var((-2, -1), keepdims=True) + 1e-5)
        return (x - mean) / std * self.w[...] + self.b[...]


class FeedForward(nnx.Module):
    def __init__(self, features, hidden, rngs):
        self.wi = nnx.Linear(features, hidden, rngs=rngs)
        self.wo = nnx.Linear(hidden, features, rngs=rngs)

    def __call__(self, x):
        return self.wo(nnx.gelu(self.wi(x)))


class MixerLayer(nnx.Module):
    def __init__(self, rngs):
        self.channels = nnx.Sequential(
            Norm(TOKENS, WIDTH), FeedForward(WIDTH, 11, rngs)
        )
        self.token_norm = Norm(TOKENS, WIDTH)
        self.tokens = FeedForward(TOKENS, 7, rngs)

    def __call__(self, x):
        mixed = self.tokens(self.token_norm(x).swapaxes(1, 2))
        x = x + mixed.swapaxes(1, 2)
        return x + self.channels(x)


class Mixer(nnx.Module):
    def __init__(self, rngs):
        self.patches = nnx.Conv(
            1, WIDTH, (PATCH, PATCH), PATCH, padding="VALID", rngs=rngs
        )
        self.layers = nnx.Dict(
            {f"mixer_{i}": MixerLayer(rngs) for i in range(2)}
        )
        self.norm = Norm(TOKENS, WIDTH)
        self.head = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, images):
        x = self.patches(images).reshape(images.shape[0], TOKENS, WIDTH)
        for i in range(2):
            x = self.layers[f"mixer_{i}"](x)
        return self.head(jnp.mean(self.norm(x), axis=1))


def left():
    return Mixer2d(jr.key(0))


def right():
    return Mixer(nnx.Rngs(1))


def inputs():
    return np.random.default_rng(0).normal(size=(2, 1, SIZE, SIZE))


def truth(take: Sources) -> dict[str, Layout]:
    made = convolution(take, "conv_in", "patches")
    made |= linear(take, "conv_out", "head")
    norms = {"norm": ("norm", (1, 0))}
    for i in range(2):
        a, b = f"blocks.{i}", f"layers.mixer_{i}"
        norms[f"{a}.norm1"] = (f"{b}.token_norm", (1, 0))
        norms[f"{a}.norm2"] = (f"{b}.channels.layers.0", (0, 1))
        for old, new in {
            "patch_mixer": "tokens",
            "hidden_mixer": "channels.layers.1",
        }.items():
            for j, name in enumerate(("wi", "wo")):
                path = f"{a}.{old}.layers.{j}"
                made |= linear(take, path, f"{b}.{new}.{name}")
    for old, (new, axes) in norms.items():
        made[f"{new}.w"] = take(f"{old}.weight").then(Transpose(axes))
        made[f"{new}.b"] = take(f"{old}.bias").then(Transpose(axes))
    return made


PAIRS = (
    Pair(
        "Mixer with transposed activations",
        __name__,
        left,
        right,
        inputs,
        truth,
        right_inputs=lambda xs: xs.transpose(0, 2, 3, 1),
        faults=(
            Fault(
                "one norm over one axis",
                "right",
                "mean = x.mean((-2, -1), keepdims=True)",
                "mean = x.mean(-1, keepdims=True)",
            ),
            Fault(
                "exact gelu",
                "right",
                "return self.wo(nnx.gelu(self.wi(x)))",
                "return self.wo(nnx.gelu(self.wi(x), approximate=False))",
            ),
            Fault(
                "sum instead of mean",
                "left",
                "self.norm(y).mean(axis=-1)",
                "self.norm(y).sum(axis=-1)",
            ),
            Fault(
                "missing residual",
                "left",
                "y = y + jax.vmap(self.hidden_mixer)(self.norm2(y))",
                "y = jax.vmap(self.hidden_mixer)(self.norm2(y))",
                other="return x + self.channels(x)",
            ),
        ),
    ),
)
