"""A transformer block of square matrices with rotary embeddings."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp

from tests.divergence.mutations.pair import Case, Pair, normal

WIDTH, HEADS, SIZE = 8, 2, 5


class Block(eqx.Module):
    q: jax.Array
    k: jax.Array
    v: jax.Array
    out: jax.Array
    gate: jax.Array
    up: jax.Array
    down: jax.Array
    scale: jax.Array

    def norm(self, x):
        mean = jnp.mean(x**2, -1, keepdims=True)
        # lacks: rot_norm_after
        return x / jnp.sqrt(mean + 1e-5) * self.scale

    def rotate(self, x):
        half = x.shape[-1] // 2
        rates = 1.0 / 10000.0 ** (jnp.arange(half) / half)
        angles = jnp.arange(x.shape[0])[:, None] * rates
        cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
        a, b = x[..., :half], x[..., half:]
        # lacks: rot_unrotated_keys
        return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def __call__(self, x):
        y = self.norm(x)
        q, k, v = (
            (y @ w).reshape(-1, HEADS, WIDTH // HEADS)
            for w in (self.q, self.k, self.v)
        )
        scores = jnp.einsum("qhd,khd->hqk", self.rotate(q), self.rotate(k))
        scores = scores / 2.0  # lacks: rot_scale
        seen = jnp.tril(jnp.ones((len(x), len(x)), bool))
        weights = jax.nn.softmax(jnp.where(seen, scores, -1e30))
        y = jnp.einsum("hqk,khd->qhd", weights, v).reshape(-1, WIDTH)
        x = x + y @ self.out  # lacks: rot_residual
        y = self.norm(x)
        return x + (jax.nn.silu(y @ self.gate) * (y @ self.up)) @ self.down


def tables(size, width, fault):
    base = 5000.0 if fault == "rot_base" else 10000.0
    steps = jnp.arange(0, width, 2)
    if fault == "rot_rates":
        steps = steps + 1  # fault: rot_rates
    # fault: rot_base
    # consumer: rot_rates
    rates = base ** (-steps / width)
    start = 1 if fault == "rot_offset" else 0
    positions = jnp.arange(start, start + size)  # fault: rot_offset
    angles = jnp.outer(positions, rates)  # consumer: rot_offset
    angles = jnp.concatenate([angles, angles], -1)
    return jnp.cos(angles), jnp.sin(angles)


def turn(x, cos, sin, fault):
    a, b = jnp.split(x, 2, -1)
    if fault == "rot_sign":
        turned = jnp.concatenate([b, -a], -1)  # fault: rot_sign
    elif fault == "rot_interleaved":
        pairs = jnp.stack([-x[..., 1::2], x[..., ::2]], -1)
        turned = pairs.reshape(x.shape)  # fault: rot_interleaved
    else:
        turned = jnp.concatenate([-b, a], -1)
    # consumer: rot_sign, rot_interleaved
    return x * cos + turned * sin


def normalize(x, scale, fault):
    eps = 1e-6 if fault == "rot_eps" else 1e-5
    power = jnp.mean(jnp.square(x), -1, keepdims=True)
    if fault == "rot_norm_after":
        return x * jax.lax.rsqrt(power * scale**-2 + eps)
    return x * jax.lax.rsqrt(power + eps) * scale  # fault: rot_eps


def heads(x):
    return x.reshape(len(x), HEADS, -1).swapaxes(0, 1)


def right(weights, x, fault):
    y = normalize(x, weights.scale, fault)
    keys, values = weights.k, weights.v
    if fault == "rot_swapped_kv":
        keys, values = values, keys
    q = heads(y @ weights.q)
    k = heads(y @ keys)  # fault: rot_swapped_kv
    v = heads(y @ values)  # fault: rot_swapped_kv
    cos, sin = tables(len(x), WIDTH // HEADS, fault)
    q = turn(q, cos, sin, fault)
    if fault != "rot_unrotated_keys":
        k = turn(k, cos, sin, fault)
    if fault == "rot_rotated_values":
        v = turn(v, cos, sin, fault)  # fault: rot_rotated_values
    if fault == "rot_swapped_qk":
        q, k = k, q
    # fault: rot_swapped_qk
    # consumer: rot_unrotated_keys
    scores = q @ k.swapaxes(1, 2)
    if fault != "rot_scale":
        scores = scores * 0.5
    i = jnp.arange(len(x))
    ahead = 1 if fault == "rot_causal" else 0
    bias = jnp.where(i[:, None] + ahead >= i, 0, -1e9)  # fault: rot_causal
    # consumer: rot_scale, rot_causal
    mixed = jax.nn.softmax(scores + bias) @ v  # consumer: rot_rotated_values
    y = mixed.swapaxes(0, 1).reshape(x.shape)
    out = weights.out.T if fault == "rot_out" else weights.out
    y = y @ out  # fault: rot_out
    if fault != "rot_residual":
        y = x + y
    z = normalize(y, weights.scale, fault)  # consumer: rot_residual
    gate, up = weights.gate, weights.up
    if fault == "rot_gate":
        gate, up = up, gate
    a = z @ gate
    act = jax.nn.gelu if fault == "rot_act" else jax.nn.silu
    a = act(a)  # fault: rot_act, rot_gate
    return y + (a * (z @ up)) @ weights.down


def rotary(rng, fault=""):
    square = [0.5 * normal(rng, WIDTH, WIDTH) for _ in range(7)]
    leaves = [*square, normal(rng, WIDTH)]
    block = Block(*leaves)
    return Case(
        lambda block, x: block(x),
        partial(right, fault=fault),
        (block, normal(rng, SIZE, WIDTH)),
    )


PAIRS = (
    Pair(
        rotary,
        (
            "rot_base",
            "rot_rates",
            "rot_offset",
            "rot_sign",
            "rot_interleaved",
            "rot_eps",
            "rot_swapped_kv",
            "rot_unrotated_keys",
            "rot_rotated_values",
            "rot_swapped_qk",
            "rot_scale",
            "rot_causal",
            "rot_out",
            "rot_residual",
            "rot_gate",
            "rot_act",
        ),
    ),
)
