"""Transformer blocks, a Llama block and a mixture of experts."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from tests.divergence.mutations.pair import (
    KEY,
    Case,
    Pair,
    filled,
    normal,
)

# --- pre-norm blocks: a list of layers against a scan over stacked ones -----


class Block(eqx.Module):
    norm: eqx.nn.LayerNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self):
        self.norm = eqx.nn.LayerNorm(4)
        self.up = eqx.nn.Linear(4, 8, key=KEY)
        self.down = eqx.nn.Linear(8, 4, key=KEY)

    def __call__(self, x):
        # lacks: block_norm, block_doubled, block_post, block_bias
        y = self.down(jax.nn.gelu(self.up(self.norm(x))))
        return x + y  # lacks: block_residual, block_post


class LeftBlocks(eqx.Module):
    blocks: list[Block]
    norm: eqx.nn.LayerNorm

    def __init__(self):
        self.blocks = [Block() for _ in range(3)]
        self.norm = eqx.nn.LayerNorm(4)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)  # lacks: block_skipped
        return self.norm(x)  # lacks: block_final


def right_blocks(stacked, last, x, fault):
    if fault == "block_shifted":
        stacked = jax.tree.map(lambda w: jnp.roll(w, 1, 0), stacked)
    if fault == "block_reversed":
        stacked = jax.tree.map(lambda w: w[::-1], stacked)
    if fault == "block_skipped":
        stacked = jax.tree.map(lambda w: w[:2], stacked)

    def step(x, block):
        return right_block(block, x, fault), None

    x, _ = lax.scan(jax.checkpoint(step), x, stacked)
    if fault == "block_final":
        return x  # fault: block_final
    return normed(last, x, fault)  # consumer: block_skipped


# consumer: block_shifted, block_reversed
def right_block(block, x, fault):
    if fault == "block_post":
        y = right_mlp(block, x, fault)  # fault: block_post
        return normed(block.norm, x + y, fault)  # fault: block_post
    y = x if fault == "block_norm" else normed(block.norm, x, fault)
    y = right_mlp(block, y, fault)
    if fault == "block_doubled":
        y = y + x  # fault: block_doubled
    if fault == "block_branch":
        x = normed(block.norm, x, fault)
    if fault == "block_residual":
        return y  # fault: block_residual
    return x + y  # fault: block_branch


def right_mlp(block, x, fault):
    # fault: block_norm, block_post
    x = x @ block.up.weight.T
    x = x + block.up.bias
    exact = fault == "block_gelu"
    x = jax.nn.gelu(x, approximate=not exact)  # fault: block_gelu
    x = x @ block.down.weight.T
    if fault == "block_bias":
        return x  # fault: block_bias
    return x + block.down.bias


def normed(norm, x, fault):
    # consumer: block_shifted, block_reversed, block_residual
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    eps = 1e-6 if fault == "block_eps" else 1e-5
    x = (x - mean) / jnp.sqrt(variance + eps)  # fault: block_eps
    # consumer: block_shifted, block_reversed
    return x * norm.weight + norm.bias


def blocks(rng, fault=""):
    left = filled(rng, LeftBlocks())
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *left.blocks)
    x = normal(rng, 3, 4)
    return Case(
        lambda model, x: jax.vmap(model)(x),
        partial(right_blocks, fault=fault),
        (left, x),
        (stacked, left.norm, x),
    )


# --- a Llama-like block: complex rotations against sines and cosines --------


class Llama(eqx.Module):
    norm: jax.Array
    q: jax.Array
    k: jax.Array
    v: jax.Array
    gate: jax.Array
    up: jax.Array
    down: jax.Array


def left_llama(w, x):
    size = x.shape[0]
    h = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * w.norm
    q = left_rotated((h @ w.q).reshape(size, 4, 4))
    k = left_rotated((h @ w.k).reshape(size, 2, 4))
    v = (h @ w.v).reshape(size, 2, 4)
    k, v = jnp.repeat(k, 2, 1), jnp.repeat(v, 2, 1)
    scores = jax.nn.softmax(jnp.einsum("qhd,khd->hqk", q, k) / 2)
    x = x + jnp.einsum("hqk,khd->qhd", scores, v).reshape(size, -1)
    return x + (jax.nn.silu(x @ w.gate) * (x @ w.up)) @ w.down


def left_rotated(x):
    """Turns the pairs of first and second halves as complex numbers."""
    size, half = x.shape[0], x.shape[-1] // 2
    rates = 10000.0 ** (-jnp.arange(half, dtype=x.dtype) / half)
    angles = jnp.outer(jnp.arange(size), rates)[:, None]
    turned = lax.complex(x[..., :half], x[..., half:]) * jnp.exp(1j * angles)
    return jnp.concatenate([turned.real, turned.imag], -1).astype(x.dtype)


def right_llama(w, x, fault):
    batch, size, width = x.shape
    h = right_rms(x, w.norm, fault)
    q, k, v = (
        (h @ weight).reshape(batch, size, -1, 4) for weight in (w.q, w.k, w.v)
    )
    q = right_rotated(q, fault)
    if fault != "llama_unrotated":
        k = right_rotated(k, fault)
    q = q.reshape(batch, size, 2, 2, 4)
    if fault == "llama_groups":
        q = q.swapaxes(2, 3)
    # fault: llama_groups, llama_unrotated
    scores = jnp.einsum("nqgrd,nkgd->ngrqk", q, k)
    scores = jax.nn.softmax(scores * 0.5)
    y = jnp.einsum("ngrqk,nkgd->nqgrd", scores, v)
    if fault == "llama_groups":
        y = y.swapaxes(2, 3)
    x = x + y.reshape(batch, size, width)
    return x + right_swiglu(w, x, fault)


def right_rms(x, scale, fault):
    square = jnp.einsum("nsi,nsi->ns", x, x) / x.shape[-1]
    if fault == "llama_eps":
        inverse = 1 / (jnp.sqrt(square) + 1e-6)  # fault: llama_eps
    else:
        inverse = lax.rsqrt(square + 1e-6)
    if fault == "llama_offset":
        scale = 1 + scale  # fault: llama_offset
    return inverse[..., None] * (x * scale)  # consumer: llama_offset


def right_rotated(x, fault):
    size, half = x.shape[1], x.shape[-1] // 2
    i = jnp.arange(half)
    if fault == "llama_rates":
        half = half * 2
    base = 1000.0 if fault == "llama_base" else 10000.0
    # fault: llama_base, llama_rates
    rates = jnp.exp(i * (-jnp.log(base) / half)).astype(x.dtype)
    # fault: llama_base, llama_rates
    angles = jnp.arange(size)[:, None, None] * rates
    if fault == "llama_sign":
        angles = -angles  # fault: llama_sign
    cos, sin = jnp.cos(angles), jnp.sin(angles)  # consumer: llama_sign
    if fault == "llama_interleaved":
        a, b = x[..., ::2], x[..., 1::2]  # fault: llama_interleaved
    else:
        a, b = jnp.split(x, 2, -1)
    a, b = (
        a * cos - b * sin,  # consumer: llama_interleaved
        a * sin + b * cos,  # consumer: llama_interleaved
    )
    return jnp.concatenate([a, b], -1)


def right_swiglu(w, x, fault):
    gate, up = x @ w.gate, x @ w.up
    if fault == "llama_gate":
        gate, up = up, gate
    if fault == "llama_gelu":
        gate = jax.nn.gelu(gate)  # fault: llama_gelu
    else:
        gate = gate / (1 + jnp.exp(-gate))  # fault: llama_gate
    return (gate * up) @ w.down


def llama(rng, fault=""):
    shapes = [(16,), (16, 16), (16, 8), (16, 8), (16, 8), (16, 8), (8, 16)]
    weights = Llama(*(normal(rng, *shape) / 2 for shape in shapes))
    return Case(
        lambda w, x: jax.vmap(left_llama, (None, 0))(w, x),
        partial(right_llama, fault=fault),
        (weights, normal(rng, 2, 3, 16)),
    )


# --- a mixture of experts: top_k against a sort -----------------------------


def left_router(w, experts, x):
    gates, chosen = lax.top_k(jax.nn.softmax(w @ x), 2)
    gates = gates / gates.sum()  # lacks: router_unnormalised
    outs = jnp.einsum("eoi,i->eo", experts, x)
    return gates @ outs[chosen]


def right_router(w, experts, x, fault):
    logits = x @ w.T
    order = jnp.argsort(logits, -1)
    if fault == "router_smallest":
        chosen = order[:, :2]  # fault: router_smallest
    else:
        chosen = order[:, ::-1][:, :2]
    if fault == "router_temperature":
        logits = logits * 2  # fault: router_temperature
    # consumer: router_smallest
    picked = jnp.take_along_axis(logits, chosen, -1)
    if fault == "router_unnormalised":
        total = jnp.exp(logits).sum(-1, keepdims=True)
        gates = jnp.exp(picked) / total
    elif fault == "router_equal":
        gates = jnp.full_like(picked, 0.5)  # fault: router_equal
    else:
        gates = jax.nn.softmax(picked)  # consumer: router_temperature
    if fault == "router_gates":
        gates = gates[:, ::-1]  # fault: router_gates
    outs = jnp.einsum("eoi,ni->neo", experts, x)
    outs = jnp.take_along_axis(outs, chosen[..., None], 1)
    # fault: router_gates, router_unnormalised
    # consumer: router_equal
    return jnp.einsum("nk,nko->no", gates, outs)


def router(rng, fault=""):
    return Case(
        jax.vmap(left_router, (None, None, 0)),
        partial(right_router, fault=fault),
        (normal(rng, 4, 6), normal(rng, 4, 5, 6), normal(rng, 3, 6)),
    )


PAIRS = (
    Pair(
        blocks,
        (
            "block_shifted",
            "block_reversed",
            "block_skipped",
            "block_final",
            "block_post",
            "block_norm",
            "block_doubled",
            "block_branch",
            "block_residual",
            "block_gelu",
            "block_bias",
            "block_eps",
        ),
    ),
    Pair(
        llama,
        (
            "llama_eps",
            "llama_offset",
            "llama_groups",
            "llama_unrotated",
            "llama_base",
            "llama_rates",
            "llama_sign",
            "llama_interleaved",
            "llama_gate",
            "llama_gelu",
        ),
    ),
    Pair(
        router,
        (
            "router_smallest",
            "router_temperature",
            "router_unnormalised",
            "router_equal",
            "router_gates",
        ),
    ),
)
