"""A vision transformer: a fused qkv array against three layers.

The left model is one that takes an example, with a list of blocks and strict
containers. The right model takes a batch.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Layout, Reshape, Slice, Transpose
from tests.pairs.bank import Fault, Pair, Sources

SIZE, WIDTH, HEADS, CLASSES = 4, 8, 2, 3


class Attention(eqx.Module):
    qkv: eqx.nn.Linear
    proj: eqx.nn.Linear
    num_heads: int = eqx.field(static=True)

    def __init__(self, dim, num_heads, *, key):
        k1, k2 = jr.split(key)
        self.qkv = eqx.nn.Linear(dim, 3 * dim, key=k1)
        self.proj = eqx.nn.Linear(dim, dim, key=k2)
        self.num_heads = num_heads

    def __call__(self, x):
        n, d = x.shape
        qkv = jax.vmap(self.qkv)(x)
        qkv = qkv.reshape(n, 3, self.num_heads, d // self.num_heads)
        q, k, v = jnp.transpose(qkv, (1, 2, 0, 3))
        scores = q @ jnp.swapaxes(k, -1, -2)
        scores = scores * (d // self.num_heads) ** -0.5
        out = jax.nn.softmax(scores, axis=-1) @ v
        out = jnp.swapaxes(out, 0, 1).reshape(n, d)
        return jax.vmap(self.proj)(out)


class Block(eqx.Module):
    norm1: eqx.nn.LayerNorm
    attn: Attention
    norm2: eqx.nn.LayerNorm
    mlp: eqx.nn.MLP

    def __init__(self, dim, num_heads, *, key):
        k1, k2 = jr.split(key)
        self.norm1 = eqx.nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads, key=k1)
        self.norm2 = eqx.nn.LayerNorm(dim)
        self.mlp = eqx.nn.MLP(
            dim, dim, 2 * dim, 1, activation=exact_gelu, key=k2
        )

    def __call__(self, x):
        x = x + self.attn(jax.vmap(self.norm1)(x))
        return x + jax.vmap(lambda y: self.mlp(self.norm2(y)))(x)


def exact_gelu(x):
    return jax.nn.gelu(x, approximate=False)


class VisionTransformer(eqx.Module):
    patch_embed: eqx.nn.Conv2d
    cls_token: jax.Array
    pos_embed: jax.Array
    blocks: list[Block]
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self, depth, *, key):
        keys = jr.split(key, depth + 4)
        self.patch_embed = eqx.nn.Conv2d(3, WIDTH, 2, 2, key=keys[0])
        self.cls_token = jr.normal(keys[1], (1, WIDTH))
        self.pos_embed = jr.normal(keys[2], (5, WIDTH))
        self.blocks = [Block(WIDTH, HEADS, key=key) for key in keys[4:]]
        self.norm = eqx.nn.LayerNorm(WIDTH)
        self.head = eqx.nn.Linear(WIDTH, CLASSES, key=keys[3])

    def __call__(self, x, *, key=None):
        x = self.patch_embed(x)
        x = x.reshape(x.shape[0], -1).T
        x = jnp.concatenate([self.cls_token, x]) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[0]))


class SelfAttention(nnx.Module):
    def __init__(self, features, heads, rngs):
        def linear():
            return nnx.Linear(features, features, rngs=rngs)

        self.query, self.key, self.value = linear(), linear(), linear()
        self.output = linear()
        self.heads = heads

    def __call__(self, hidden):
        def split_heads(y):
            return y.reshape(*y.shape[:-1], self.heads, -1)

        query = split_heads(self.query(hidden))
        key = split_heads(self.key(hidden))
        value = split_heads(self.value(hidden))
        query = query / jnp.sqrt(query.shape[-1])
        weights = jnp.einsum("bqhd,bkhd->bhqk", query, key)
        weights = nnx.softmax(weights)
        context = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        return self.output(context.reshape(hidden.shape))


class EncoderLayer(nnx.Module):
    def __init__(self, features, heads, rngs):
        self.attention = SelfAttention(features, heads, rngs)
        self.layernorm_before = nnx.LayerNorm(
            features, epsilon=1e-5, rngs=rngs
        )
        self.layernorm_after = nnx.LayerNorm(features, epsilon=1e-5, rngs=rngs)
        self.intermediate = nnx.Linear(features, 2 * features, rngs=rngs)
        self.dense = nnx.Linear(2 * features, features, rngs=rngs)

    def __call__(self, hidden):
        attended = self.attention(self.layernorm_before(hidden))
        hidden = attended + hidden
        y = self.intermediate(self.layernorm_after(hidden))
        y = nnx.gelu(y, approximate=False)
        return self.dense(y) + hidden


class ViT(nnx.Module):
    def __init__(self, num_layers, *, rngs):
        self.patches = nnx.Conv(
            3, WIDTH, (2, 2), strides=2, padding="VALID", rngs=rngs
        )
        self.embeddings = nnx.Dict(
            token=nnx.Param(jnp.zeros((1, 1, WIDTH))),
            position=nnx.Param(rngs.params.normal((1, 5, WIDTH))),
        )
        self.layer = nnx.List(
            [EncoderLayer(WIDTH, HEADS, rngs) for _ in range(num_layers)]
        )
        self.layernorm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.classifier = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, pixels):
        batch = pixels.shape[0]
        patches = self.patches(pixels)
        patches = patches.reshape(batch, -1, WIDTH)
        cls = jnp.broadcast_to(self.embeddings.token[...], (batch, 1, WIDTH))
        hidden = jnp.concatenate([cls, patches], axis=1)
        hidden = hidden + self.embeddings.position[...]
        for layer in self.layer:
            hidden = layer(hidden)
        return self.classifier(self.layernorm(hidden)[:, 0])


def left():
    return VisionTransformer(2, key=jr.key(0))


def right():
    return ViT(2, rngs=nnx.Rngs(1))


def inputs():
    return np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE))


def truth(take: Sources) -> dict[str, Layout]:
    matrix = Transpose((1, 0))
    made = {
        "patches.kernel": take("patch_embed.weight").then(
            Transpose((2, 3, 1, 0))
        ),
        "patches.bias": take("patch_embed.bias").then(Reshape((WIDTH,))),
        "embeddings.token": take("cls_token").then(Reshape((1, 1, WIDTH))),
        "embeddings.position": take("pos_embed").then(Reshape((1, 5, WIDTH))),
        "layernorm.scale": take("norm.weight"),
        "layernorm.bias": take("norm.bias"),
        "classifier.kernel": take("head.weight").then(matrix),
        "classifier.bias": take("head.bias"),
    }
    for i in range(2):
        a, b = f"blocks.{i}", f"layer.{i}"
        for j, name in enumerate(("query", "key", "value")):
            piece = Slice(0, j * WIDTH, (j + 1) * WIDTH)
            made[f"{b}.attention.{name}.kernel"] = take(
                f"{a}.attn.qkv.weight"
            ).then(piece, matrix)
            made[f"{b}.attention.{name}.bias"] = take(
                f"{a}.attn.qkv.bias"
            ).then(piece)
        for new, old in {
            "attention.output": "attn.proj",
            "intermediate": "mlp.layers.0",
            "dense": "mlp.layers.1",
        }.items():
            made[f"{b}.{new}.kernel"] = take(f"{a}.{old}.weight").then(matrix)
            made[f"{b}.{new}.bias"] = take(f"{a}.{old}.bias")
        for new, old in {
            "layernorm_before": "norm1",
            "layernorm_after": "norm2",
        }.items():
            made[f"{b}.{new}.scale"] = take(f"{a}.{old}.weight")
            made[f"{b}.{new}.bias"] = take(f"{a}.{old}.bias")
    return made


PAIRS = (
    Pair(
        "vision transformer, fused qkv against three layers",
        __name__,
        left,
        right,
        inputs,
        truth,
        right_inputs=lambda xs: xs.transpose(0, 2, 3, 1),
        free=("layer.0.attention.key.bias", "layer.1.attention.key.bias"),
        faults=(
            Fault(
                "tanh instead of erf gelu",
                "right",
                "nnx.gelu(y, approximate=False)",
                "nnx.gelu(y, approximate=True)",
            ),
            Fault(
                "missing scale of the scores",
                "right",
                "query = query / jnp.sqrt(query.shape[-1])",
                "query = query",
                line="bqhd,bkhd->bhqk",
                other="scores * (d // self.num_heads) ** -0.5",
            ),
            Fault(
                "eps of the last norm",
                "left",
                "self.norm = eqx.nn.LayerNorm(WIDTH)",
                "self.norm = eqx.nn.LayerNorm(WIDTH, eps=1e-3)",
                line="self.norm(x[0])",
            ),
            Fault(
                "missing residual",
                "right",
                "return self.dense(y) + hidden",
                "return self.dense(y)",
                other="jax.vmap(lambda y: self.mlp(self.norm2(y)))(x)",
            ),
            Fault(
                "softmax over the wrong axis",
                "left",
                "jax.nn.softmax(scores, axis=-1)",
                "jax.nn.softmax(scores, axis=-2)",
            ),
        ),
    ),
)
