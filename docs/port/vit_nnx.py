"""The same model in Flax NNX, ported by hand with a different eps."""

import jax.numpy as jnp
from flax import nnx

from docs.port import vit_equinox


class Attention(nnx.Module):
    def __init__(self, size, heads, *, rngs):
        self.q = nnx.Linear(size, size, rngs=rngs)
        self.k = nnx.Linear(size, size, rngs=rngs)
        self.v = nnx.Linear(size, size, rngs=rngs)
        self.out = nnx.Linear(size, size, rngs=rngs)
        self.heads = heads

    def __call__(self, x):
        batch, tokens, size = x.shape
        split = (batch, tokens, self.heads, size // self.heads)
        q, k, v = (f(x).reshape(split) for f in (self.q, self.k, self.v))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q * split[-1] ** -0.5, k)
        x = jnp.einsum("bhqk,bkhd->bqhd", nnx.softmax(scores), v)
        return self.out(x.reshape(batch, tokens, size))


class Block(nnx.Module):
    def __init__(self, size, heads, *, rngs):
        self.norm1 = nnx.LayerNorm(size, rngs=rngs)
        self.attention = Attention(size, heads, rngs=rngs)
        self.scale1 = nnx.Param(jnp.full(size, 0.1))
        self.norm2 = nnx.LayerNorm(size, rngs=rngs)
        self.up = nnx.Linear(size, 4 * size, rngs=rngs)
        self.down = nnx.Linear(4 * size, size, rngs=rngs)
        self.scale2 = nnx.Param(jnp.full(size, 0.1))

    def __call__(self, x):
        x = x + self.scale1 * self.attention(self.norm1(x))
        x = x + self.scale2 * self.down(nnx.gelu(self.up(self.norm2(x))))
        return x


class ViT(nnx.Module):
    def __init__(self, size=32, heads=4, depth=3, patch=4, *, rngs):
        window = (patch, patch)
        self.patches = nnx.Conv(
            3, size, window, strides=window, padding="VALID", rngs=rngs
        )
        self.cls = nnx.Param(jnp.zeros((1, size)))
        self.blocks = nnx.List(
            [Block(size, heads, rngs=rngs) for _ in range(depth)]
        )
        self.norm = nnx.LayerNorm(size, rngs=rngs)

    def __call__(self, images):
        x = self.patches(images)
        x = x.reshape(len(x), -1, x.shape[-1])
        cls = jnp.broadcast_to(self.cls[...], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([cls, x], axis=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


def ported(source, size=32, depth=3, heads=4, patch=4):
    """Returns the model with the weights of the Equinox model."""

    def linear(to, weight, bias):
        to.kernel, to.bias = nnx.Param(weight.T), nnx.Param(bias)

    model = ViT(size, heads, depth, patch, rngs=nnx.Rngs(0))
    patches = source.patches
    model.patches.bias = nnx.Param(patches.bias.reshape(-1))
    model.patches.kernel = nnx.Param(patches.weight.transpose(2, 3, 1, 0))
    model.cls = nnx.Param(source.cls)
    for new, old in zip(model.blocks, source.blocks, strict=True):
        qkv = old.attention.qkv
        weights, biases = jnp.split(qkv.weight, 3), jnp.split(qkv.bias, 3)
        parts = (new.attention.q, new.attention.k, new.attention.v)
        for part, weight, bias in zip(parts, weights, biases, strict=True):
            linear(part, weight, bias)
        out = old.attention.out
        linear(new.attention.out, out.weight, out.bias)
        for to, one in zip((new.up, new.down), old.mlp.layers, strict=True):
            linear(to, one.weight, one.bias)
    return model


model = ported(vit_equinox.model)


def features(images):
    """Returns the class token of each image, (B, 16, 16, 3) -> (B, 32)."""
    return model(images)


def parity(images, tolerance):
    """Returns whether the port passes a usual parity test."""
    error = features(images) - vit_equinox.features(images)
    return bool(jnp.max(jnp.abs(error)) < tolerance)


def repaired():
    """Returns the port with the eps of Equinox."""
    model = ported(vit_equinox.model)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.LayerNorm):
            module.epsilon = vit_equinox.model.norm.eps
    return model
