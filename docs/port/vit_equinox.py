"""A small vision transformer in Equinox: the model to port."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr


class Attention(eqx.Module):
    qkv: eqx.nn.Linear
    out: eqx.nn.Linear
    heads: int = eqx.field(static=True)

    def __init__(self, size, heads, *, key):
        key1, key2 = jr.split(key)
        self.qkv = eqx.nn.Linear(size, 3 * size, key=key1)
        self.out = eqx.nn.Linear(size, size, key=key2)
        self.heads = heads

    def __call__(self, x):
        tokens, size = x.shape
        qkv = jax.vmap(self.qkv)(x)
        qkv = qkv.reshape(tokens, 3, self.heads, size // self.heads)
        q, k, v = jnp.moveaxis(qkv, 1, 0)
        scores = jnp.einsum("qhd,khd->hqk", q, k) / jnp.sqrt(q.shape[-1])
        x = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores), v)
        return jax.vmap(self.out)(x.reshape(tokens, size))


class Block(eqx.Module):
    norm1: eqx.nn.LayerNorm
    attention: Attention
    scale1: jax.Array
    norm2: eqx.nn.LayerNorm
    mlp: eqx.nn.MLP
    scale2: jax.Array

    def __init__(self, size, heads, *, key):
        key1, key2 = jr.split(key)
        self.norm1 = eqx.nn.LayerNorm(size)
        self.attention = Attention(size, heads, key=key1)
        self.scale1 = jnp.full(size, 0.1)
        self.norm2 = eqx.nn.LayerNorm(size)
        self.mlp = eqx.nn.MLP(
            size, size, 4 * size, depth=1, activation=jax.nn.gelu, key=key2
        )
        self.scale2 = jnp.full(size, 0.1)

    def __call__(self, x):
        x = x + self.scale1 * self.attention(jax.vmap(self.norm1)(x))
        x = x + self.scale2 * jax.vmap(self.mlp)(jax.vmap(self.norm2)(x))
        return x


class ViT(eqx.Module):
    patches: eqx.nn.Conv2d
    cls: jax.Array
    blocks: list[Block]
    norm: eqx.nn.LayerNorm

    def __init__(self, size=32, heads=4, depth=3, patch=4, *, key):
        key1, key2, *keys = jr.split(key, 2 + depth)
        self.patches = eqx.nn.Conv2d(3, size, patch, patch, key=key1)
        self.cls = jr.normal(key2, (1, size))
        self.blocks = [Block(size, heads, key=key) for key in keys]
        self.norm = eqx.nn.LayerNorm(size)

    def __call__(self, image):
        x = self.patches(jnp.moveaxis(image, -1, 0))
        x = jnp.concatenate([self.cls, x.reshape(len(x), -1).T])
        for block in self.blocks:
            x = block(x)
        return jax.vmap(self.norm)(x)[0]


model = ViT(key=jr.key(0))


def features(images):
    """Returns the class token of each image, (B, 16, 16, 3) -> (B, 32)."""
    return jax.vmap(model)(images)
