"""Attention layers, written twice."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx

from tests.divergence.mutations.pair import (
    KEY,
    RNGS,
    Case,
    Pair,
    filled,
    given,
    normal,
)

# --- attention: three linear layers against one, per example and batched ----


class LeftAttention(eqx.Module):
    q: eqx.nn.Linear
    k: eqx.nn.Linear
    v: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self):
        self.q = eqx.nn.Linear(6, 6, key=KEY)
        self.k = eqx.nn.Linear(6, 6, key=KEY)
        self.v = eqx.nn.Linear(6, 6, key=KEY)
        self.out = eqx.nn.Linear(6, 6, key=KEY)

    def __call__(self, x):
        q, k, v = (
            jax.vmap(layer)(x).reshape(-1, 2, 3)
            for layer in (self.q, self.k, self.v)
        )
        # lacks: att_scale
        # consumer: att_heads, att_rows
        scores = jnp.einsum("qhd,khd->hqk", q, k) / 3**0.5
        mask = jnp.tril(jnp.ones((x.shape[0], x.shape[0]), bool))
        # lacks: att_mask
        # consumer: att_swapped
        scores = jnp.where(mask, scores, -1e30)
        weights = jax.nn.softmax(scores)
        x = jnp.einsum("hqk,khd->qhd", weights, v).reshape(-1, 6)
        return jax.vmap(self.out)(x)


def right_attention(weights, x, fault):
    weight, bias = fused(weights, fault)
    batch, size, width = x.shape
    qkv = x @ weight.T + bias
    if fault == "att_heads":
        qkv = qkv.reshape(batch, size, 3, 3, 2).swapaxes(3, 4)
    else:
        qkv = qkv.reshape(batch, size, 3, 2, 3)
    q, k, v = jnp.moveaxis(qkv, 2, 0)  # fault: att_heads
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    if fault == "att_scale":
        power = 0.0
    else:
        power = -1.0 if fault == "att_scale_power" else -0.5
    # fault: att_scale_power
    # consumer: att_heads
    q = q * 3**power
    if fault == "att_swapped":
        q, k = k, q
    # fault: att_swapped, att_scale
    # consumer: att_rows, att_heads
    scores = q @ k.swapaxes(2, 3)
    i = jnp.arange(size)
    ahead = 1 if fault == "att_causal" else 0
    seen = i[None, :] <= i[:, None] + ahead  # fault: att_causal
    if fault == "att_mask_after":
        weights_ = jax.nn.softmax(scores)  # fault: att_mask_after
        weights_ = jnp.where(seen, weights_, 0)  # fault: att_mask_after
    else:
        if fault != "att_mask":
            # consumer: att_swapped
            scores = scores + jnp.where(seen, 0, -1e30)
        axis = -2 if fault == "att_axis" else -1
        weights_ = softmax(scores, axis)  # fault: att_mask, att_axis
    if fault == "att_float16":
        # fault: att_float16
        weights_ = weights_.astype("float16").astype(x.dtype)
    x = weights_ @ v  # consumer: att_rows, att_heads
    x = x.swapaxes(1, 2).reshape(batch, size, width)
    out = weights.out.weight
    if fault != "att_out":
        out = out.T
    return x @ out + weights.out.bias  # fault: att_out


def fused(weights, fault):
    parts = [weights.q, weights.k, weights.v]
    if fault == "att_rows":
        parts = [weights.q, weights.v, weights.k]
    weight = jnp.concatenate(
        [part.weight for part in parts]
    )  # fault: att_rows
    bias = jnp.concatenate([part.bias for part in parts])  # fault: att_rows
    return weight, bias


def softmax(x, axis):
    x = jnp.exp(x - x.max(axis, keepdims=True))
    return x / x.sum(axis, keepdims=True)


def attention(rng, fault=""):
    left = filled(rng, LeftAttention())
    return Case(
        lambda model, x: jax.vmap(model)(x),
        partial(right_attention, fault=fault),
        (left, normal(rng, 2, 5, 6)),
    )


# --- the libraries' own attention -------------------------------------------


def right_library(left, fault):
    def kernel(linear):
        return given(linear.weight.T.reshape(6, 2, 3))

    def attend(q, k, v, **_):
        # The library's own computes its softmax in float32, always.
        scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) / 3**0.5
        return jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores), v)

    options = {"use_bias": False, "rngs": RNGS}
    layer = nnx.MultiHeadAttention(
        2, 6, attention_fn=attend, decode=False, **options
    )
    for name in ("query", "key", "value"):
        linear = getattr(left, name + "_proj")
        if fault == "library_heads" and name == "key":
            linear = eqx.tree_at(
                lambda layer: layer.weight,
                linear,
                jnp.roll(linear.weight, 3, 0),
            )
        setattr(
            layer,
            name,
            nnx.LinearGeneral(
                6, (2, 3), kernel_init=kernel(linear), **options
            ),
        )
    layer.out = nnx.LinearGeneral(
        (2, 3),
        6,
        axis=(-2, -1),
        kernel_init=given(left.output_proj.weight.T.reshape(2, 3, 6)),
        **options,
    )
    return layer


def library_attention(rng, fault=""):
    left = filled(rng, eqx.nn.MultiheadAttention(2, 6, key=KEY))

    def left_call(layer, x, y):
        return jax.vmap(layer)(x, y, y)

    def right_call(layer, x, y):
        if fault == "library_inputs":
            x, y = y, x
        if fault == "library_values":
            return layer(x, y, x)  # fault: library_values
        # fault: library_inputs, library_heads
        return layer(x, y, y)

    x, y = normal(rng, 2, 4, 6), normal(rng, 2, 4, 6)
    return Case(
        left_call, right_call, (left, x, y), (right_library(left, fault), x, y)
    )


PAIRS = (
    Pair(
        attention,
        (
            "att_heads",
            "att_scale",
            "att_scale_power",
            "att_swapped",
            "att_causal",
            "att_mask",
            "att_mask_after",
            "att_axis",
            "att_float16",
            "att_out",
            "att_rows",
        ),
    ),
    Pair(
        library_attention,
        ("library_inputs", "library_values", "library_heads"),
        rewritten=False,
        leaves={"library_heads": "key"},
    ),
)
