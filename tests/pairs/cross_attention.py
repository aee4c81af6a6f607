"""Attention to a context, with the stock attention layer of each library.

The left layer has square matrices, the right one kernels with an axis of
heads. The key bias of the right model has no counterpart and no effect. Both
models take a dict. `eqx.nn.MultiheadAttention` takes its softmax in float32.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Layout, Reshape, Transpose
from tests.pairs.bank import Fault, Pair, Sources, linear, norm

WIDTH, HEADS, SIZE, CONTEXT = 6, 2, 3, 5


class Perceiver(eqx.Module):
    latents: jax.Array
    attention: eqx.nn.MultiheadAttention
    norm_q: eqx.nn.LayerNorm
    norm_kv: eqx.nn.LayerNorm
    output: eqx.nn.Linear

    def __init__(self, key):
        k1, k2, k3 = jr.split(key, 3)
        self.latents = jr.normal(k1, (2, WIDTH))
        self.attention = eqx.nn.MultiheadAttention(
            HEADS,
            WIDTH,
            key_size=CONTEXT,
            value_size=CONTEXT,
            use_query_bias=True,
            use_value_bias=True,
            use_output_bias=True,
            key=k2,
        )
        self.norm_q = eqx.nn.LayerNorm(WIDTH)
        self.norm_kv = eqx.nn.LayerNorm(CONTEXT)
        self.output = eqx.nn.Linear(WIDTH, "scalar", key=k3)

    def __call__(self, inputs):
        q = self.latents + inputs["query"]
        context = jax.vmap(self.norm_kv)(inputs["context"])
        q = q + self.attention(jax.vmap(self.norm_q)(q), context, context)
        return jax.vmap(self.output)(q)


class Resampler(nnx.Module):
    def __init__(self, rngs):
        self.ln_latents = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.ln_media = nnx.LayerNorm(CONTEXT, epsilon=1e-5, rngs=rngs)
        self.mha = nnx.MultiHeadAttention(
            num_heads=HEADS,
            in_features=WIDTH,
            in_kv_features=CONTEXT,
            decode=False,
            rngs=rngs,
        )
        self.queries = nnx.Param(rngs.params.normal((2, WIDTH)))
        self.fc = nnx.Linear(WIDTH, 1, rngs=rngs)

    def __call__(self, batch):
        x = batch["query"] + self.queries[...]
        media = self.ln_media(batch["context"])
        x = self.mha(self.ln_latents(x), media) + x
        return jnp.squeeze(self.fc(x), axis=-1)


def left():
    return Perceiver(jr.key(0))


def right():
    return Resampler(nnx.Rngs(1))


def inputs():
    rng = np.random.default_rng(0)
    return {
        "context": rng.normal(size=(3, 4, CONTEXT)),
        "query": rng.normal(size=(3, 2, WIDTH)),
    }


def truth(take: Sources) -> dict[str, Layout]:
    made = {"queries": take("latents")}
    made |= norm(take, "norm_q", "ln_latents")
    made |= norm(take, "norm_kv", "ln_media")
    made |= linear(take, "output", "fc")
    for name in ("query", "key", "value"):
        weight = take(f"attention.{name}_proj.weight")
        heads = Reshape((weight.shape[1], HEADS, SIZE))
        made[f"mha.{name}.kernel"] = weight.then(Transpose((1, 0)), heads)
        if name != "key":
            made[f"mha.{name}.bias"] = take(
                f"attention.{name}_proj.bias"
            ).then(Reshape((HEADS, SIZE)))
    made["mha.out.kernel"] = take("attention.output_proj.weight").then(
        Transpose((1, 0)), Reshape((HEADS, SIZE, WIDTH))
    )
    made["mha.out.bias"] = take("attention.output_proj.bias")
    return made


PAIRS = (
    Pair(
        "attention layers of both libraries",
        __name__,
        left,
        right,
        inputs,
        truth,
        right_only=("mha.key.bias",),
        ceiling="float32",
        faults=(
            Fault(
                "missing residual",
                "right",
                "x = self.mha(self.ln_latents(x), media) + x",
                "x = self.mha(self.ln_latents(x), media)",
            ),
            Fault(
                "context is not normalized",
                "left",
                'context = jax.vmap(self.norm_kv)(inputs["context"])',
                'context = inputs["context"]',
                line="self.attention(",
            ),
            Fault(
                "difference instead of sum",
                "right",
                'x = batch["query"] + self.queries[...]',
                'x = batch["query"] - self.queries[...]',
            ),
            Fault(
                "heads and their width are exchanged",
                "left",
                "            HEADS,\n            WIDTH,",
                "            3,\n            WIDTH,",
                line="self.attention(",
            ),
        ),
    ),
)
