"""A decoder block with grouped-query attention and a gated perceptron.

The left model has bare arrays: keys and values are stacked, and so are the
gate and the values of the perceptron. The right model has kernels with an
axis of heads, and a rotary table that is a plain array.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Index, Layout, Reshape
from tests.pairs.bank import Fault, Pair, Sources

WIDTH, HEADS, GROUPS, SIZE, LENGTH, HIDDEN = 6, 4, 2, 4, 3, 10


class GroupedAttention(eqx.Module):
    wq: jax.Array
    wkv: jax.Array
    wo: jax.Array

    def __init__(self, key):
        k1, k2, k3 = jr.split(key, 3)
        self.wq = jr.normal(k1, (WIDTH, HEADS * SIZE))
        self.wkv = jr.normal(k2, (2, WIDTH, GROUPS * SIZE))
        self.wo = jr.normal(k3, (HEADS * SIZE, WIDTH))

    def __call__(self, x):
        positions = jnp.arange(x.shape[0])
        q = rotate((x @ self.wq).reshape(-1, HEADS, SIZE), positions)
        k, v = x @ self.wkv
        k = rotate(k.reshape(-1, GROUPS, SIZE), positions)
        v = v.reshape(-1, GROUPS, SIZE)
        k = jnp.repeat(k, HEADS // GROUPS, axis=1)
        v = jnp.repeat(v, HEADS // GROUPS, axis=1)
        scores = jnp.einsum("qhd,khd->hqk", q, k) / jnp.sqrt(SIZE)
        past = positions[:, None] >= positions[None, :]
        weights = jax.nn.softmax(jnp.where(past, scores, -jnp.inf))
        return (
            jnp.einsum("hqk,khd->qhd", weights, v).reshape(x.shape[0], -1)
            @ self.wo
        )


def rotate(x, positions):
    angles = positions[:, None] / 100.0 ** (jnp.arange(0, SIZE, 2) / SIZE)
    cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
    even, odd = x[..., ::2], x[..., 1::2]
    turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], -1)
    return turned.reshape(x.shape)


class Gated(eqx.Module):
    w_in: jax.Array
    w_out: jax.Array

    def __init__(self, key):
        k1, k2 = jr.split(key)
        self.w_in = jr.normal(k1, (WIDTH, 2, HIDDEN))
        self.w_out = jr.normal(k2, (HIDDEN, WIDTH))

    def __call__(self, x):
        gate, value = jnp.moveaxis(
            jnp.einsum("td,dih->tih", x, self.w_in), 1, 0
        )
        return (jax.nn.silu(gate) * value) @ self.w_out


class DecoderBlock(eqx.Module):
    attention_norm: eqx.nn.RMSNorm
    attention: GroupedAttention
    mlp_norm: eqx.nn.RMSNorm
    mlp: Gated

    def __init__(self, key):
        k1, k2 = jr.split(key)
        self.attention_norm = eqx.nn.RMSNorm(WIDTH, use_bias=False)
        self.attention = GroupedAttention(k1)
        self.mlp_norm = eqx.nn.RMSNorm(WIDTH, use_bias=False)
        self.mlp = Gated(k2)

    def __call__(self, x):
        x = x + self.attention(jax.vmap(self.attention_norm)(x))
        return x + self.mlp(jax.vmap(self.mlp_norm)(x))


class Rope(nnx.Module):
    def __init__(self, size, length):
        angles = np.arange(length)[:, None] / np.power(
            100.0, np.arange(0, size, 2) / size
        )
        self.freqs = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)]))

    def __call__(self, x):
        cos, sin = jnp.repeat(self.freqs, 2, axis=-1)[:, :, None, :]
        pairs = x.reshape(*x.shape[:-1], -1, 2)
        turned = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1)
        return x * cos + turned.reshape(x.shape) * sin


class GQA(nnx.Module):
    def __init__(self, rngs):
        def heads(count):
            return nnx.LinearGeneral(
                WIDTH, (count, SIZE), use_bias=False, rngs=rngs
            )

        self.query = heads(HEADS)
        self.key, self.value = heads(GROUPS), heads(GROUPS)
        self.out = nnx.LinearGeneral(
            (HEADS, SIZE), WIDTH, axis=(-2, -1), use_bias=False, rngs=rngs
        )
        self.rope = Rope(SIZE, LENGTH)

    def __call__(self, inputs):
        batch, length, _ = inputs.shape
        query = self.rope(self.query(inputs)) * SIZE**-0.5
        key = self.rope(self.key(inputs))
        grouped = query.reshape(batch, length, GROUPS, -1, SIZE)
        logits = jnp.einsum("btngd,bsnd->bngts", grouped, key)
        future = jnp.triu(jnp.ones((length, length), bool), 1)
        probs = nnx.softmax(jnp.where(future, -1e30, logits))
        mixed = jnp.einsum("bngts,bsnd->btngd", probs, self.value(inputs))
        return self.out(mixed.reshape(batch, length, HEADS, SIZE))


class SwiGLU(nnx.Module):
    def __init__(self, rngs):
        self.gate_proj = nnx.Linear(WIDTH, HIDDEN, use_bias=False, rngs=rngs)
        self.up_proj = nnx.Linear(WIDTH, HIDDEN, use_bias=False, rngs=rngs)
        self.down_proj = nnx.Linear(HIDDEN, WIDTH, use_bias=False, rngs=rngs)

    def __call__(self, x):
        gated = nnx.silu(self.gate_proj(x)) * self.up_proj(x)
        return self.down_proj(gated)


class LlamaLayer(nnx.Module):
    def __init__(self, *, rngs):
        self.pre_attention = nnx.RMSNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.pre_mlp = nnx.RMSNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.attn = GQA(rngs)
        self.ffn = SwiGLU(rngs)

    def __call__(self, x):
        x = x + self.attn(self.pre_attention(x))
        x = x + self.ffn(self.pre_mlp(x))
        return x


def left():
    return DecoderBlock(jr.key(0))


def right():
    return LlamaLayer(rngs=nnx.Rngs(1))


def inputs():
    return np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH))


def truth(take: Sources) -> dict[str, Layout]:
    heads = Reshape((WIDTH, GROUPS, SIZE))
    wkv, w_in = take("attention.wkv"), take("mlp.w_in")
    return {
        "pre_attention.scale": take("attention_norm.weight"),
        "pre_mlp.scale": take("mlp_norm.weight"),
        "attn.query.kernel": take("attention.wq").then(
            Reshape((WIDTH, HEADS, SIZE))
        ),
        "attn.key.kernel": wkv.then(Index(0, 0), heads),
        "attn.value.kernel": wkv.then(Index(0, 1), heads),
        "attn.out.kernel": take("attention.wo").then(
            Reshape((HEADS, SIZE, WIDTH))
        ),
        "ffn.gate_proj.kernel": w_in.then(Index(1, 0)),
        "ffn.up_proj.kernel": w_in.then(Index(1, 1)),
        "ffn.down_proj.kernel": take("mlp.w_out"),
    }


PAIRS = (
    Pair(
        "grouped-query attention with bare arrays",
        __name__,
        left,
        right,
        inputs,
        truth,
        right_only=("attn.rope.freqs",),
        faults=(
            Fault(
                "heads of a group are apart",
                "right",
                "query.reshape(batch, length, GROUPS, -1, SIZE)",
                "query.reshape(batch, length, 2, 2, 4).swapaxes(2, 3)",
                line="btngd,bsnd->bngts",
                other="k = jnp.repeat(k, HEADS // GROUPS, axis=1)",
                remapped=True,
            ),
            Fault(
                "gate of another activation",
                "right",
                "nnx.silu(self.gate_proj(x))",
                "nnx.gelu(self.gate_proj(x))",
            ),
            Fault(
                "missing scale",
                "right",
                "self.rope(self.query(inputs)) * SIZE**-0.5",
                "self.rope(self.query(inputs))",
                line="btngd,bsnd->bngts",
                other='jnp.einsum("qhd,khd->hqk", q, k) / jnp.sqrt(SIZE)',
            ),
            Fault(
                "keys are repeated in another order",
                "left",
                "k = jnp.repeat(k, HEADS // GROUPS, axis=1)",
                "k = jnp.tile(k, (1, HEADS // GROUPS, 1))",
            ),
        ),
    ),
)
