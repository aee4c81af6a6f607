"""Grouped-query attention with sinks, a window and normalized queries."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp

from tests.divergence.mutations.pair import Case, Pair, normal

WIDTH, HEADS, GROUPS, SIZE = 8, 4, 2, 6
DIM = WIDTH // HEADS
WINDOW = 3


class Grouped(eqx.Module):
    q: eqx.nn.Linear
    kv: eqx.nn.Linear
    out: eqx.nn.Linear
    sinks: jax.Array
    scale: jax.Array

    def __init__(self, key):
        self.q = eqx.nn.Linear(WIDTH, WIDTH, key=key)
        self.kv = eqx.nn.Linear(WIDTH, 2 * GROUPS * DIM, key=key)
        self.out = eqx.nn.Linear(WIDTH, WIDTH, key=key)
        self.sinks = jnp.zeros(HEADS)
        self.scale = jnp.zeros(DIM)

    def norm(self, x):
        square = jnp.mean(x * x, -1, keepdims=True)
        return x / jnp.sqrt(square + 1e-6) * self.scale

    def __call__(self, x):
        q = jax.vmap(self.q)(x).reshape(-1, HEADS, DIM)
        kv = jax.vmap(self.kv)(x).reshape(-1, 2, GROUPS, DIM)
        # lacks: gqa_unnormed
        q, k, v = self.norm(q), self.norm(kv[:, 0]), kv[:, 1]
        k = jnp.repeat(k, HEADS // GROUPS, axis=1)
        v = jnp.repeat(v, HEADS // GROUPS, axis=1)
        scores = jnp.einsum("qhd,khd->hqk", q, k) / jnp.sqrt(DIM)
        scores = 5.0 * jnp.tanh(scores / 5.0)  # lacks: gqa_uncapped
        i, j = jnp.arange(len(x))[:, None], jnp.arange(len(x))
        seen = (j <= i) & (i - j < WINDOW)
        scores = jnp.where(seen, scores, -1e30)
        # lacks: gqa_no_sinks
        sinks = jnp.broadcast_to(self.sinks[:, None, None], (HEADS, len(x), 1))
        scores = jnp.concatenate([scores, sinks], -1)
        weights = jax.nn.softmax(scores)[..., :-1]
        y = jnp.einsum("hqk,khd->qhd", weights, v).reshape(-1, WIDTH)
        return x + jax.vmap(self.out)(y)


def grouped_heads(x, count):
    return x.reshape(*x.shape[:-1], count, DIM).swapaxes(-2, -3)


def rms(x, scale, eps):
    # fault: gqa_eps
    return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + eps) * scale


def share(x, fault):
    """Repeats the heads of the groups."""
    count = HEADS // GROUPS
    if fault == "gqa_tiled":
        return jnp.tile(x, (count, 1, 1))  # fault: gqa_tiled
    return jnp.repeat(x, count, 0)


def visible(size, fault):
    i = jnp.arange(size)
    distance = i[:, None] - i[None]
    window = WINDOW + 1 if fault == "gqa_window" else WINDOW
    ahead = -1 if fault == "gqa_causal" else 0
    # fault: gqa_causal, gqa_window
    return (distance >= ahead) & (distance < window)


def right(model, x, fault):
    q = x @ model.q.weight.T
    if fault != "gqa_bias":
        q = q + model.q.bias
    q = grouped_heads(q, HEADS)  # consumer: gqa_bias
    kv = x @ model.kv.weight.T + model.kv.bias
    k, v = jnp.split(kv, 2, -1)
    if fault == "gqa_swapped_kv":
        k, v = v, k
    k, v = grouped_heads(k, GROUPS), grouped_heads(v, GROUPS)
    if fault == "gqa_value_heads":
        v = v[::-1]  # fault: gqa_value_heads
    eps = 1e-5 if fault == "gqa_eps" else 1e-6
    # consumer: gqa_bias
    q = rms(q, model.scale, eps)
    if fault != "gqa_unnormed":
        k = rms(k, model.scale, eps)  # fault: gqa_swapped_kv
    # consumer: gqa_value_heads
    # fault: gqa_swapped_kv
    k, v = share(k, fault), share(v, fault)
    # consumer: gqa_unnormed, gqa_tiled
    scores = jnp.matmul(q, k.swapaxes(1, 2))
    size = WIDTH if fault == "gqa_scale" else DIM
    scores = scores * size**-0.5  # fault: gqa_scale
    if fault != "gqa_uncapped":
        cap = 4.0 if fault == "gqa_cap" else 5.0
        scores = cap * jnp.tanh(scores / cap)  # fault: gqa_cap
    seen = visible(len(x), fault)
    # consumer: gqa_uncapped, gqa_window, gqa_causal
    scores = scores + jnp.where(seen, 0, -1e9)
    largest = scores.max(-1, keepdims=True)
    powers = jnp.exp(scores - largest)
    total = powers.sum(-1, keepdims=True)
    if fault != "gqa_no_sinks":
        sinks = model.sinks
        if fault == "gqa_zero_sinks":
            sinks = 0 * sinks  # fault: gqa_zero_sinks
        if fault == "gqa_sink_order":
            sinks = jnp.roll(sinks, 1)  # fault: gqa_sink_order
        # fault: gqa_zero_sinks, gqa_sink_order
        total = total + jnp.exp(sinks[:, None, None] - largest)
    # consumer: gqa_tiled, gqa_value_heads
    # fault: gqa_no_sinks
    y = (powers / total) @ v
    if fault == "gqa_merged":
        y = y.transpose(1, 2, 0)  # fault: gqa_merged
    else:
        y = y.transpose(1, 0, 2)
    y = y.reshape(-1, WIDTH)  # fault: gqa_merged
    return x + y @ model.out.weight.T + model.out.bias


def grouped(rng, fault=""):
    model = Grouped(jax.random.key(0))
    model = jax.tree.map(lambda x: normal(rng, *x.shape), model)
    return Case(
        lambda model, x: model(x),
        partial(right, fault=fault),
        (model, normal(rng, SIZE, WIDTH)),
    )


PAIRS = (
    Pair(
        grouped,
        (
            "gqa_bias",
            "gqa_swapped_kv",
            "gqa_value_heads",
            "gqa_eps",
            "gqa_unnormed",
            "gqa_tiled",
            "gqa_scale",
            "gqa_uncapped",
            "gqa_cap",
            "gqa_window",
            "gqa_causal",
            "gqa_no_sinks",
            "gqa_zero_sinks",
            "gqa_sink_order",
            "gqa_merged",
        ),
    ),
)
