"""An encoder-decoder with buckets of relative positions.

The Equinox side takes one pair of sentences. The NNX side takes a batch, with
keys and values of one fused projection, and adds a bias that is gathered.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.divergence.mutations.pair import (
    KEY,
    RNGS,
    Case,
    Pair,
    filled,
    given,
    linear_of,
)

WORDS, WIDTH, HEADS, HIDDEN = 11, 8, 2, 12
DIM = WIDTH // HEADS
BUCKETS, FARTHEST = 8, 12
SOURCE, TARGET, BATCH = 7, 5, 2
EPS = 1e-6


# --- Equinox: one pair of sentences -----------------------------------------


class Scale(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        power = jnp.mean(jnp.square(x.astype("float32")), -1, keepdims=True)
        return self.weight * (x / jnp.sqrt(power + EPS))  # lacks: tr_no_scale


class RelativeBias(eqx.Module):
    table: jax.Array
    both_ways: bool = eqx.field(static=True)

    def bucket(self, offset):
        count = BUCKETS
        start = jnp.zeros_like(offset)
        if self.both_ways:
            count = count // 2
            start = jnp.where(offset > 0, count, 0)
            offset = jnp.abs(offset)
        else:
            offset = -jnp.minimum(offset, 0)
        exact = count // 2
        share = jnp.log(jnp.maximum(offset, 1) / exact)
        share = share / math.log(FARTHEST / exact)
        far = exact + (share * (count - exact)).astype("int32")
        far = jnp.minimum(far, count - 1)
        return start + jnp.where(offset < exact, offset, far)

    def __call__(self, queries, keys):
        offset = jnp.arange(keys)[None, :] - jnp.arange(queries)[:, None]
        chosen = jax.nn.one_hot(self.bucket(offset), BUCKETS)
        return jnp.einsum("qkb,bh->hqk", chosen, self.table)


class Attention(eqx.Module):
    q: eqx.nn.Linear
    k: eqx.nn.Linear
    v: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self):
        layers = [
            eqx.nn.Linear(WIDTH, WIDTH, use_bias=False, key=KEY)
            for _ in range(4)
        ]
        self.q, self.k, self.v, self.out = layers

    def __call__(self, x, memory, bias):
        q = jax.vmap(self.q)(x).reshape(len(x), HEADS, DIM)
        k = jax.vmap(self.k)(memory).reshape(len(memory), HEADS, DIM)
        v = jax.vmap(self.v)(memory).reshape(len(memory), HEADS, DIM)
        scores = jnp.einsum("qhd,khd->hqk", q, k) + bias
        weights = jax.nn.softmax(scores.astype("float32"), -1)
        mixed = jnp.einsum("hqk,khd->qhd", weights, v)
        return jax.vmap(self.out)(mixed.reshape(len(x), WIDTH))


class Feed(eqx.Module):
    gate: eqx.nn.Linear
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self):
        self.gate = eqx.nn.Linear(WIDTH, HIDDEN, use_bias=False, key=KEY)
        self.up = eqx.nn.Linear(WIDTH, HIDDEN, use_bias=False, key=KEY)
        self.down = eqx.nn.Linear(HIDDEN, WIDTH, use_bias=False, key=KEY)

    def __call__(self, x):
        gate = jax.nn.gelu(jax.vmap(self.gate)(x))
        return jax.vmap(self.down)(gate * jax.vmap(self.up)(x))


class Translator(eqx.Module):
    words: jax.Array
    biases: tuple[RelativeBias, RelativeBias]
    attention: tuple[Attention, Attention, Attention]
    feeds: tuple[Feed, Feed]
    norms: tuple[Scale, ...]

    def __init__(self):
        table = jnp.zeros((BUCKETS, HEADS))
        self.words = jnp.zeros((WORDS, WIDTH))
        self.biases = RelativeBias(table, True), RelativeBias(table, False)
        self.attention = Attention(), Attention(), Attention()
        self.feeds = Feed(), Feed()
        self.norms = tuple(Scale(jnp.zeros(WIDTH)) for _ in range(7))

    def encode(self, source, valid):
        x = self.words[source]
        bias = self.biases[0](SOURCE, SOURCE)
        bias = jnp.where(valid, bias, -1e9)  # lacks: tr_encoder_mask
        y = self.norms[0](x)
        x = x + self.attention[0](y, y, bias)
        x = x + self.feeds[0](self.norms[1](x))
        return self.norms[2](x)  # lacks: tr_memory_norm

    def decode(self, target, memory, valid):
        start = jnp.zeros(1, target.dtype)
        shifted = jnp.concatenate([start, target[:-1]])
        x = self.words[shifted]
        past = jnp.tril(jnp.ones((TARGET, TARGET), bool))
        bias = jnp.where(past, self.biases[1](TARGET, TARGET), -1e9)
        y = self.norms[3](x)
        x = x + self.attention[1](y, y, bias)
        y = self.norms[4](x)  # lacks: tr_cross_norm
        bias = jnp.where(valid, 0.0, -1e9)  # lacks: tr_cross_mask
        x = x + self.attention[2](y, memory, bias)
        x = x + self.feeds[1](self.norms[5](x))
        # lacks: tr_tied_scale
        return self.norms[6](x) * WIDTH**-0.5

    def __call__(self, source, valid, target):
        memory = self.encode(source, valid)
        return self.decode(target, memory, valid) @ self.words.T


# --- NNX: a batch -----------------------------------------------------------


class RootMeanSquare(nnx.Module):
    def __init__(self, left, fault):
        self.scale = nnx.Param(left.weight)
        self.fault = fault

    def __call__(self, x):
        eps = 1e-5 if self.fault == "tr_eps" else EPS
        wide = x.astype(jnp.float32)
        power = (wide * wide).mean(axis=-1, keepdims=True)
        normed = x * jax.lax.rsqrt(power + eps)  # fault: tr_eps
        if self.fault == "tr_no_scale":
            return normed
        return normed * self.scale[...]


def find_buckets(queries, keys, both_ways, fault):
    """Returns the bucket of the distance of each query to each key."""
    ahead = np.arange(keys) - np.arange(queries)[:, None]
    ahead = jnp.asarray(ahead)
    if fault == "tr_direction":
        ahead = -ahead  # fault: tr_direction
    count = BUCKETS // 2 if both_ways else BUCKETS
    if both_ways:
        shift = count * (ahead > 0)  # consumer: tr_direction
        distance = jnp.where(ahead < 0, -ahead, ahead)
    else:
        shift = 0
        distance = jnp.maximum(-ahead, 0)  # consumer: tr_direction
    near = count // 2
    farthest = 24 if fault == "tr_farthest" else FARTHEST
    steps = jnp.log(jnp.clip(distance, 1) / near)
    # fault: tr_farthest
    steps = steps * ((count - near) / math.log(farthest / near))
    far = jnp.clip(near + jnp.floor(steps), max=count - 1).astype(int)
    # consumer: tr_farthest
    return jnp.where(distance < near, distance, far) + shift


class Bias(nnx.Module):
    def __init__(self, left, fault):
        self.embedding = nnx.Embed(
            BUCKETS, HEADS, embedding_init=given(left.table), rngs=RNGS
        )
        self.both_ways = left.both_ways
        self.fault = fault

    def __call__(self, queries, keys):
        buckets = find_buckets(queries, keys, self.both_ways, self.fault)
        found = self.embedding(buckets)
        if self.fault == "tr_bias_heads":
            found = found[..., ::-1]  # fault: tr_bias_heads
        if self.fault == "tr_bias_axes":
            # fault: tr_bias_axes
            return jnp.einsum("qkh->hkq", found)
        # consumer: tr_bias_heads
        return found.transpose(2, 0, 1)


class MultiHead(nnx.Module):
    def __init__(self, left, fault, is_cross=False):
        self.query = linear_of(left.q, use_bias=False)
        halves = left.k.weight, left.v.weight
        if is_cross and fault == "tr_cross_kv":
            halves = halves[::-1]
        fused = jnp.concatenate(halves).T
        self.both = nnx.Linear(
            WIDTH,
            2 * WIDTH,
            use_bias=False,
            kernel_init=given(fused),
            rngs=RNGS,
        )
        self.last = linear_of(left.out, use_bias=False)
        self.is_cross = is_cross
        self.fault = fault

    def __call__(self, x, memory, bias):
        q = self.split(self.query(x))
        k, v = jnp.split(self.both(memory), 2, -1)
        k, v = self.split(k), self.split(v)  # fault: tr_cross_kv
        logits = q @ k.swapaxes(-1, -2)  # fault: tr_cross_kv
        if self.fault == "tr_scaled":
            logits = logits / math.sqrt(DIM)  # fault: tr_scaled
        # consumer: tr_scaled, tr_bias_axes
        logits = logits + bias
        powers = jnp.exp(logits - logits.max(-1, keepdims=True))
        shares = powers / powers.sum(-1, keepdims=True)
        mixed = shares @ v  # fault: tr_cross_kv
        if self.fault == "tr_merge":
            merged = mixed.swapaxes(2, 3)  # fault: tr_merge
        else:
            merged = mixed
        merged = merged.swapaxes(1, 2)  # fault: tr_merge
        # consumer: tr_merge
        return self.last(merged.reshape(*x.shape[:2], WIDTH))

    def split(self, x):
        return x.reshape(*x.shape[:2], HEADS, DIM).swapaxes(1, 2)


class GatedUnit(nnx.Module):
    def __init__(self, left, fault):
        inner = [
            linear_of(layer, use_bias=False) for layer in (left.gate, left.up)
        ]
        self.inner = nnx.List(inner[::-1] if fault == "tr_gate" else inner)
        self.outer = linear_of(left.down, use_bias=False)
        self.fault = fault

    def __call__(self, x):
        gate, value = (layer(x) for layer in self.inner)  # fault: tr_gate
        exact = self.fault == "tr_gelu"
        gate = nnx.gelu(gate, approximate=not exact)  # fault: tr_gelu, tr_gate
        return self.outer(value * gate)


class Seq2Seq(nnx.Module):
    def __init__(self, left, fault):
        self.embed = nnx.Embed(
            WORDS, WIDTH, embedding_init=given(left.words), rngs=RNGS
        )
        self.biases = nnx.List([Bias(one, fault) for one in left.biases])
        first, second, cross = left.attention
        self.read = MultiHead(first, fault)
        self.write = MultiHead(second, fault)
        self.look = MultiHead(cross, fault, is_cross=True)
        self.feeds = nnx.List([GatedUnit(one, fault) for one in left.feeds])
        self.norms = nnx.List(
            [RootMeanSquare(one, fault) for one in left.norms]
        )
        self.fault = fault

    def encode(self, source, seen):
        x = self.embed(source)
        bias = self.biases[0](SOURCE, SOURCE)
        if self.fault != "tr_encoder_mask":
            bias = bias + jnp.where(seen, 0.0, -1e9)[:, None, None]
        y = self.norms[0](x)
        x = x + self.read(y, y, bias)  # consumer: tr_encoder_mask
        x = x + self.feeds[0](self.norms[1](x))
        if self.fault == "tr_memory_norm":
            return x
        return self.norms[2](x)

    def shift(self, target):
        if self.fault == "tr_shift":
            # fault: tr_shift
            return jnp.pad(target[:, 1:], ((0, 0), (0, 1)))
        return jnp.pad(target[:, :-1], ((0, 0), (1, 0)))

    def __call__(self, source, valid, target):
        memory = self.encode(source, valid)
        x = self.embed(self.shift(target))  # consumer: tr_shift
        table = self.biases[0 if self.fault == "tr_bias_shared" else 1]
        bias = table(TARGET, TARGET)  # fault: tr_bias_shared
        rows = jnp.arange(TARGET)
        ahead = 1 if self.fault == "tr_causal" else 0
        # fault: tr_causal
        hidden = rows[None, :] > rows[:, None] + ahead
        # consumer: tr_bias_shared
        bias = bias - 1e9 * hidden  # consumer: tr_causal
        y = self.norms[3](x)
        x = x + self.write(y, y, bias)
        y = x if self.fault == "tr_cross_norm" else self.norms[4](x)
        bias = jnp.where(valid[:, None, None], 0.0, -1e9)
        if self.fault == "tr_cross_mask":
            bias = jnp.zeros_like(bias)  # fault: tr_cross_mask
        # consumer: tr_memory_norm, tr_cross_norm, tr_cross_mask
        x = x + self.look(y, memory, bias)
        x = x + self.feeds[1](self.norms[5](x))
        x = self.norms[6](x)
        if self.fault != "tr_tied_scale":
            x = x / math.sqrt(WIDTH)
        return self.embed.attend(x)  # consumer: tr_tied_scale


def translation(rng, fault=""):
    left = filled(rng, Translator())
    source = jnp.asarray(rng.integers(1, WORDS, (BATCH, SOURCE)), "int32")
    target = jnp.asarray(rng.integers(1, WORDS, (BATCH, TARGET)), "int32")
    valid = jnp.arange(SOURCE) < jnp.asarray([SOURCE, SOURCE - 2])[:, None]
    inputs = source, valid, target
    return Case(
        lambda model, *inputs: jax.vmap(model)(*inputs),
        lambda model, *inputs: model(*inputs),
        (left, *inputs),
        (Seq2Seq(left, fault), *inputs),
    )


PAIRS = (
    Pair(
        translation,
        (
            "tr_eps",
            "tr_no_scale",
            "tr_direction",
            "tr_farthest",
            "tr_bias_heads",
            "tr_bias_axes",
            "tr_bias_shared",
            "tr_encoder_mask",
            "tr_memory_norm",
            "tr_shift",
            "tr_causal",
            "tr_cross_kv",
            "tr_cross_norm",
            "tr_cross_mask",
            "tr_scaled",
            "tr_merge",
            "tr_gate",
            "tr_gelu",
            "tr_tied_scale",
        ),
    ),
)
