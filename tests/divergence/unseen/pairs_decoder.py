"""A decoder layer: sinks as a column against sinks in the denominator.

The Equinox side takes one sequence, one fused projection, and gates that
alternate with the values. The NNX side takes a batch, separate projections,
and queries that are grouped by the head that they read.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from tests.divergence.mutations.pair import (
    KEY,
    Case,
    Pair,
    filled,
    linear_of,
    normal,
)

WIDTH, HEADS, SHARED, DIM = 8, 4, 2, 4
REPEATS = HEADS // SHARED
HIDDEN, LENGTH, BATCH = 8, 6, 2
SPAN = 3
EPS, BASE, SLOPE, LIMIT = 1e-5, 10000.0, 1.702, 1.5


# --- Equinox: one sequence --------------------------------------------------


class RMSNorm(eqx.Module):
    scale: jax.Array
    eps: float = eqx.field(static=True, default=EPS)

    def __call__(self, x):
        t, dtype = x.astype(jnp.float32), x.dtype
        t = t * lax.rsqrt(jnp.mean(t**2, axis=-1, keepdims=True) + self.eps)
        return (t * self.scale).astype(dtype)  # lacks: dec_norm_scale


class Rotary(eqx.Module):
    base: float = eqx.field(static=True, default=BASE)

    def tables(self, length):
        exponents = jnp.arange(0, DIM, 2, dtype=jnp.float32) / DIM
        rates = 1.0 / self.base**exponents
        angles = jnp.einsum("i,j->ij", jnp.arange(length) * 1.0, rates)
        return jnp.cos(angles), jnp.sin(angles)

    def __call__(self, x):
        cos, sin = (t[:, None, :] for t in self.tables(x.shape[0]))
        first, second = jnp.split(x, 2, axis=-1)
        return jnp.concatenate(
            (first * cos - second * sin, second * cos + first * sin), axis=-1
        )


class Attention(eqx.Module):
    norm: RMSNorm
    qkv: eqx.nn.Linear
    out: eqx.nn.Linear
    sinks: jax.Array
    rotary: Rotary

    def __init__(self):
        self.norm = RMSNorm(jnp.ones(WIDTH))
        size = (HEADS + 2 * SHARED) * DIM
        self.qkv = eqx.nn.Linear(WIDTH, size, key=KEY)
        self.out = eqx.nn.Linear(HEADS * DIM, WIDTH, key=KEY)
        self.sinks = jnp.zeros(HEADS)
        self.rotary = Rotary()

    def __call__(self, x):
        length = x.shape[0]
        qkv = jax.vmap(self.qkv)(self.norm(x))
        q, k, v = jnp.split(qkv, (HEADS * DIM, (HEADS + SHARED) * DIM), -1)
        q = self.rotary(q.reshape(length, HEADS, DIM))
        k = self.rotary(k.reshape(length, SHARED, DIM))
        k = jnp.repeat(k, REPEATS, axis=1)
        v = jnp.repeat(v.reshape(length, SHARED, DIM), REPEATS, axis=1)
        scores = jnp.einsum("qhd,khd->hqk", q, k) / math.sqrt(DIM)
        mask = jnp.triu(jnp.full((length, length), -jnp.inf), k=1)
        mask = mask + jnp.tril(jnp.full((length, length), -jnp.inf), k=-SPAN)
        sinks = jnp.broadcast_to(self.sinks[:, None, None], (HEADS, length, 1))
        scores = jnp.concatenate([scores + mask, sinks], axis=-1)
        weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1)
        weights = weights[..., :-1].astype(x.dtype)
        mixed = jnp.einsum("hqk,khd->qhd", weights, v)
        # lacks: dec_out_bias
        return x + jax.vmap(self.out)(mixed.reshape(length, -1))


class GatedUnit(eqx.Module):
    norm: RMSNorm
    inner: eqx.nn.Linear
    outer: eqx.nn.Linear

    def __init__(self):
        self.norm = RMSNorm(jnp.ones(WIDTH))
        self.inner = eqx.nn.Linear(WIDTH, 2 * HIDDEN, key=KEY)
        self.outer = eqx.nn.Linear(HIDDEN, WIDTH, key=KEY)

    def __call__(self, x):
        t = jax.vmap(self.inner)(self.norm(x))
        gate, value = t[..., ::2], t[..., 1::2]
        gate = jnp.minimum(gate, LIMIT)
        value = jnp.clip(value, -LIMIT, LIMIT)
        glu = gate * jax.nn.sigmoid(SLOPE * gate)
        # lacks: dec_plus_one
        return x + jax.vmap(self.outer)(glu * (value + 1))


class Decoder(eqx.Module):
    attention: Attention
    unit: GatedUnit
    norm: RMSNorm

    def __init__(self):
        self.attention = Attention()
        self.unit = GatedUnit()
        self.norm = RMSNorm(jnp.ones(WIDTH))

    def __call__(self, x):
        return self.norm(self.unit(self.attention(x)))


# --- NNX: a batch, heads in groups ------------------------------------------


def part(layer, start, stop, step=1):
    """Returns some of the outputs of an `eqx.nn.Linear` as a layer."""
    rows = slice(start, stop, step)
    inner = eqx.nn.Linear(
        layer.in_features, layer.weight[rows].shape[0], key=KEY
    )
    values = (layer.weight[rows], layer.bias[rows])
    inner = eqx.tree_at(lambda m: (m.weight, m.bias), inner, values)
    return linear_of(inner)


class Scaled(nnx.Module):
    """Divides by the root mean square, in float32."""

    def __init__(self, left, fault):
        self.scale = nnx.Param(left.scale)
        self.epsilon = 1e-6 if fault == "dec_eps" else EPS
        self.fault = fault

    def __call__(self, x):
        wide = jnp.asarray(x, jnp.float32)
        power = jnp.square(wide).mean(-1, keepdims=True)
        # fault: dec_eps
        # consumer: dec_residual
        normed = wide / jnp.sqrt(power + self.epsilon)
        if self.fault == "dec_norm_scale":
            return normed.astype(x.dtype)
        return normed.astype(x.dtype) * self.scale[...]


def make_angles(length, fault):
    base = 1000.0 if fault == "dec_base" else BASE
    index = jnp.arange(DIM // 2)
    # fault: dec_base
    rates = jnp.exp(-math.log(base) * index.astype(jnp.float32) * 2 / DIM)
    position = jnp.arange(length)
    return position.astype(jnp.float32)[:, None] * rates  # fault: dec_base


def embed_positions(x, fault, role):
    """Rotates pairs of features of (batch, time, ..., size)."""
    angles = make_angles(x.shape[1], fault)
    if fault == "dec_key_offset" and role == "key":
        # fault: dec_key_offset
        angles = make_angles(x.shape[1] + 1, fault)[1:]
    shape = (1, x.shape[1], *(1,) * (x.ndim - 3), DIM // 2)
    # consumer: dec_key_offset
    sin, cos = jnp.sin(angles).reshape(shape), jnp.cos(angles).reshape(shape)
    if fault == "dec_pairs":
        half = x.reshape(*x.shape[:-1], DIM // 2, 2)  # fault: dec_pairs
        a, b = half[..., 0], half[..., 1]  # fault: dec_pairs
    else:
        a, b = x[..., : DIM // 2], x[..., DIM // 2 :]
    # consumer: dec_pairs, dec_base
    turned = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-2)
    return turned.reshape(x.shape)


def may_read(length, fault):
    span = SPAN + 1 if fault == "dec_span" else SPAN
    distance = jnp.subtract.outer(jnp.arange(length), jnp.arange(length))
    # fault: dec_span
    return jnp.logical_and(distance >= 0, distance < span)


class GroupedAttention(nnx.Module):
    def __init__(self, left, fault):
        self.norm = Scaled(left.norm, fault)
        bounds = (0, HEADS * DIM, (HEADS + SHARED) * DIM, None)
        self.q, self.k, self.v = (
            part(left.qkv, *pair)
            for pair in zip(bounds[:-1], bounds[1:], strict=True)
        )
        if fault == "dec_swapped_kv":
            self.k, self.v = self.v, self.k
        self.out = linear_of(left.out, use_bias=fault != "dec_out_bias")
        self.sinks = nnx.Param(left.sinks)
        self.fault = fault

    def __call__(self, x):
        batch, length, _ = x.shape
        y = self.norm(x)
        q, k, v = self.project(y)
        q = embed_positions(q, self.fault, "query")
        k = embed_positions(k, self.fault, "key")
        mixed = self.mix(q, k, v)
        out = self.out(mixed.reshape(batch, length, -1))  # fault: dec_out_bias
        if self.fault == "dec_residual":
            return y + out  # fault: dec_residual
        return x + out  # consumer: dec_out_bias

    def project(self, y):
        lead = y.shape[:2]
        q = self.q(y).reshape(*lead, SHARED, REPEATS, DIM)
        if self.fault == "dec_groups":
            # fault: dec_groups
            q = q.reshape(*lead, REPEATS, SHARED, DIM).swapaxes(2, 3)
        k = self.k(y).reshape(*lead, SHARED, DIM)  # fault: dec_swapped_kv
        v = self.v(y).reshape(*lead, SHARED, DIM)  # fault: dec_swapped_kv
        if self.fault == "dec_value_heads":
            v = jnp.flip(v, 2)  # fault: dec_value_heads
        return q, k, v

    def mix(self, q, k, v):
        size = WIDTH if self.fault == "dec_scale" else DIM
        # fault: dec_scale
        # consumer: dec_groups
        logits = jnp.einsum("btgrd,bsgd->bgrts", q * size**-0.5, k)
        seen = may_read(q.shape[1], self.fault)
        least = jnp.finfo(jnp.float32).min
        # consumer: dec_span
        logits = jnp.where(seen, logits.astype(jnp.float32), least)
        if self.fault == "dec_half":
            # fault: dec_half
            logits = logits.astype(jnp.bfloat16).astype(jnp.float32)
        sinks = self.sinks[...].reshape(SHARED, REPEATS, 1)
        if self.fault == "dec_no_sinks":
            sinks = jnp.zeros_like(sinks)  # fault: dec_no_sinks
        # consumer: dec_no_sinks
        total = jnp.logaddexp(jax.nn.logsumexp(logits, -1), sinks)
        shares = jnp.exp(logits - total[..., None]).astype(v.dtype)
        # consumer: dec_value_heads
        return jnp.einsum("bgrts,bsgd->btgrd", shares, v)


class Feed(nnx.Module):
    def __init__(self, left, fault):
        self.norm = Scaled(left.norm, fault)
        self.gate = part(left.inner, 0, None, 2)
        self.value = part(left.inner, 1, None, 2)
        if fault == "dec_halves":
            self.gate, self.value = self.value, self.gate
        self.outer = linear_of(left.outer)
        self.fault = fault

    def __call__(self, x):
        y = self.norm(x)
        gate, value = self.gate(y), self.value(y)  # fault: dec_halves
        limit = 1.4 if self.fault == "dec_limit" else LIMIT
        # fault: dec_limit, dec_halves
        value = jnp.maximum(jnp.minimum(value, limit), -limit)
        gate = jnp.where(gate > LIMIT, LIMIT, gate)  # fault: dec_halves
        if self.fault == "dec_slope":
            act = nnx.swish(gate)  # fault: dec_slope
        else:
            act = nnx.swish(SLOPE * gate) / SLOPE
        if self.fault != "dec_plus_one":
            act = act + act * value
        else:
            act = act * value  # fault: dec_plus_one
        return x + self.outer(act)  # consumer: dec_slope


class Layer(nnx.Module):
    def __init__(self, left, fault):
        self.attention = GroupedAttention(left.attention, fault)
        self.feed = Feed(left.unit, fault)
        self.norm = Scaled(left.norm, fault)

    def __call__(self, x):
        return self.norm(self.feed(self.attention(x)))


def decoder(rng, fault=""):
    left = filled(rng, Decoder())
    x = normal(rng, BATCH, LENGTH, WIDTH)
    return Case(
        lambda model, x: jax.vmap(model)(x),
        lambda model, x: model(x),
        (left, x),
        (Layer(left, fault), x),
    )


PAIRS = (
    Pair(
        decoder,
        (
            "dec_eps",
            "dec_norm_scale",
            "dec_base",
            "dec_key_offset",
            "dec_pairs",
            "dec_span",
            "dec_swapped_kv",
            "dec_out_bias",
            "dec_residual",
            "dec_groups",
            "dec_value_heads",
            "dec_scale",
            "dec_half",
            "dec_no_sinks",
            "dec_halves",
            "dec_limit",
            "dec_slope",
            "dec_plus_one",
        ),
    ),
)
