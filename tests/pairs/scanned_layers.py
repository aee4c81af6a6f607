"""A rotary transformer: stacked and scanned layers against a list of them.

The left model keeps its layers in one module with stacked arrays, its rotary
table in one float array, and its causal mask in a boolean array. The right
model has a list of layers, and two Variables for the table.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Index, Layout, Slice, Transpose
from tests.pairs.bank import Fault, Pair, Sources, linear, norm

VOCAB, WIDTH, HEADS, LENGTH, DEPTH = 7, 8, 2, 4, 3


def rotary_table(length, width):
    frequencies = 10.0 ** -np.linspace(0, 1, width // 2)
    angles = np.outer(np.arange(length), frequencies)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


class Layer(eqx.Module):
    ln1: eqx.nn.LayerNorm
    wqkv: eqx.nn.Linear
    wo: eqx.nn.Linear
    ln2: eqx.nn.LayerNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, key):
        keys = jr.split(key, 4)
        self.ln1 = eqx.nn.LayerNorm(WIDTH, use_bias=False)
        self.wqkv = eqx.nn.Linear(
            WIDTH, 3 * WIDTH, use_bias=False, key=keys[0]
        )
        self.wo = eqx.nn.Linear(WIDTH, WIDTH, use_bias=False, key=keys[1])
        self.ln2 = eqx.nn.LayerNorm(WIDTH, use_bias=False)
        self.up = eqx.nn.Linear(WIDTH, 2 * WIDTH, key=keys[2])
        self.down = eqx.nn.Linear(2 * WIDTH, WIDTH, key=keys[3])

    def __call__(self, x, table, mask):
        q, k, v = jnp.split(
            jax.vmap(self.wqkv)(jax.vmap(self.ln1)(x)), 3, axis=-1
        )
        q, k, v = (y.reshape(len(x), HEADS, -1) for y in (q, k, v))
        q, k = rotate(q, table), rotate(k, table)
        scores = jnp.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
        y = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores), v)
        x = x + jax.vmap(self.wo)(y.reshape(x.shape))
        hidden = jax.nn.relu(jax.vmap(self.up)(jax.vmap(self.ln2)(x))) ** 2
        return x + jax.vmap(self.down)(hidden)


def rotate(x, table):
    a, b = jnp.split(x, 2, axis=-1)
    cos, sin = table[:, None, :, 0], table[:, None, :, 1]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


class Transformer(eqx.Module):
    embed: eqx.nn.Embedding
    layers: Layer
    rope: jax.Array
    mask: jax.Array
    final: eqx.nn.LayerNorm
    logits: eqx.nn.Linear

    def __init__(self, key):
        k1, k2, k3 = jr.split(key, 3)
        self.embed = eqx.nn.Embedding(VOCAB, WIDTH, key=k1)
        self.layers = eqx.filter_vmap(Layer)(jr.split(k2, DEPTH))
        self.rope = jnp.asarray(rotary_table(LENGTH, WIDTH // HEADS))
        self.mask = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))
        self.final = eqx.nn.LayerNorm(WIDTH, use_bias=False)
        self.logits = eqx.nn.Linear(WIDTH, VOCAB, key=k3)

    def __call__(self, tokens):
        x = jax.vmap(self.embed)(tokens)
        arrays, static = eqx.partition(self.layers, eqx.is_array)

        def body(x, arrays):
            layer = eqx.combine(arrays, static)
            return layer(x, self.rope, self.mask), None

        x, _ = jax.lax.scan(body, x, arrays)
        return jax.vmap(self.logits)(jax.vmap(self.final)(x))


class CausalAttention(nnx.Module):
    def __init__(self, dim, n_heads, rngs):
        def project():
            return nnx.Linear(dim, dim, use_bias=False, rngs=rngs)

        self.q_proj, self.k_proj = project(), project()
        self.v_proj, self.o_proj = project(), project()
        self.n_heads = n_heads

    def __call__(self, x, cos, sin):
        shape = (*x.shape[:-1], self.n_heads, -1)
        q = apply_rotary(self.q_proj(x).reshape(shape), cos, sin)
        k = apply_rotary(self.k_proj(x).reshape(shape), cos, sin)
        v = self.v_proj(x).reshape(shape)
        att = jnp.einsum("bthd,bshd->bhts", q, k) * q.shape[-1] ** -0.5
        causal = jnp.arange(x.shape[1])[:, None] < jnp.arange(x.shape[1])
        att = nnx.softmax(att - 1e30 * causal, axis=-1)
        y = jnp.einsum("bhts,bshd->bthd", att, v)
        return self.o_proj(y.reshape(x.shape))


def apply_rotary(x, cos, sin):
    half = x.shape[-1] // 2
    rotated = jnp.concatenate([-x[..., half:], x[..., :half]], axis=-1)
    cos = jnp.tile(cos, 2)[:, None, :]
    sin = jnp.tile(sin, 2)[:, None, :]
    return x * cos + rotated * sin


class DecoderLayer(nnx.Module):
    def __init__(self, dim, n_heads, rngs):
        self.input_norm = nnx.LayerNorm(
            dim, epsilon=1e-5, use_bias=False, rngs=rngs
        )
        self.self_attn = CausalAttention(dim, n_heads, rngs)
        self.post_norm = nnx.LayerNorm(
            dim, epsilon=1e-5, use_bias=False, rngs=rngs
        )
        self.fc = nnx.Linear(dim, 2 * dim, rngs=rngs)
        self.proj = nnx.Linear(2 * dim, dim, rngs=rngs)

    def __call__(self, x, cos, sin):
        x = x + self.self_attn(self.input_norm(x), cos, sin)
        h = jnp.square(nnx.relu(self.fc(self.post_norm(x))))
        return x + self.proj(h)


class GPT(nnx.Module):
    def __init__(self, rngs):
        self.tokens = nnx.Embed(VOCAB, WIDTH, dtype=jnp.float64, rngs=rngs)
        layers = [DecoderLayer(WIDTH, HEADS, rngs) for _ in range(DEPTH)]
        self.h = nnx.List(layers)
        table = jnp.asarray(rotary_table(LENGTH, WIDTH // HEADS))
        self.cos = nnx.Variable(table[..., 0])
        self.sin = nnx.Variable(table[..., 1])
        self.ln_f = nnx.LayerNorm(
            WIDTH, epsilon=1e-5, use_bias=False, rngs=rngs
        )
        self.lm_head = nnx.Linear(WIDTH, VOCAB, rngs=rngs)

    def __call__(self, idx):
        x = self.tokens(idx)
        for layer in self.h:
            x = layer(x, self.cos[...], self.sin[...])
        return self.lm_head(self.ln_f(x))


def left():
    return Transformer(jr.key(0))


def right():
    return GPT(nnx.Rngs(1))


def inputs():
    return np.random.default_rng(0).integers(0, VOCAB, (2, LENGTH))


def truth(take: Sources) -> dict[str, Layout]:
    made = {
        "tokens.embedding": take("embed.weight"),
        "cos": take("rope").then(Index(2, 0)),
        "sin": take("rope").then(Index(2, 1)),
        **norm(take, "final", "ln_f", bias=False),
        **linear(take, "logits", "lm_head"),
    }
    for i in range(DEPTH):

        def one(name: str, i: int = i) -> Layout:
            return take(f"layers.{name}").then(Index(0, i))

        h = f"h.{i}"
        for j, name in enumerate("qkv"):
            piece = Slice(0, j * WIDTH, (j + 1) * WIDTH)
            made[f"{h}.self_attn.{name}_proj.kernel"] = one(
                "wqkv.weight"
            ).then(piece, Transpose((1, 0)))
        made |= linear(one, "wo", f"{h}.self_attn.o_proj", bias=False)
        made |= norm(one, "ln1", f"{h}.input_norm", bias=False)
        made |= norm(one, "ln2", f"{h}.post_norm", bias=False)
        made |= linear(one, "up", f"{h}.fc") | linear(one, "down", f"{h}.proj")
    return made


PAIRS = (
    Pair(
        "stacked and scanned layers against a list",
        __name__,
        left,
        right,
        inputs,
        truth,
        constants=("cos", "sin"),
        faults=(
            Fault(
                "rotates the other way",
                "left",
                "[a * cos - b * sin, a * sin + b * cos]",
                "[a * cos + b * sin, b * cos - a * sin]",
                remapped=True,
            ),
            Fault(
                "missing square",
                "right",
                "h = jnp.square(nnx.relu(self.fc(self.post_norm(x))))",
                "h = nnx.relu(self.fc(self.post_norm(x)))",
                other="jax.vmap(self.up)(jax.vmap(self.ln2)(x))) ** 2",
            ),
            Fault(
                "keys are not rotated",
                "right",
                "k = apply_rotary(self.k_proj(x).reshape(shape), cos, sin)",
                "k = self.k_proj(x).reshape(shape)",
                line="bthd,bshd->bhts",
            ),
            Fault(
                "missing norm",
                "right",
                "self.self_attn(self.input_norm(x), cos, sin)",
                "self.self_attn(x, cos, sin)",
                line="self.q_proj(x)",
            ),
            Fault(
                "mask hides the present",
                "right",
                "jnp.arange(x.shape[1])[:, None] < jnp.arange(x.shape[1])",
                "jnp.arange(x.shape[1])[:, None] - 1 < jnp.arange(x.shape[1])",
                line="nnx.softmax(att - 1e30 * causal, axis=-1)",
            ),
        ),
    ),
)
