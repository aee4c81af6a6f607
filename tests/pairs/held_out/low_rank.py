"""Layers with low-rank updates, merged axes against flat ones; held out.

The left model keeps heads and their width apart in all arrays, the right one
merges them. The right model stores the base weight as (in, out), and its
update as one product with a learned scale for each head.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Layout, Reshape, Transpose
from tests.pairs.bank import Fault, Pair, Sources, linear

INPUTS, HEADS, WIDTH, RANK, OUTPUTS = 5, 2, 3, 2, 4


class LowRankHeads(eqx.Module):
    base: jax.Array
    down: jax.Array
    up: jax.Array
    offset: jax.Array
    alpha: float = eqx.field(static=True)

    def __init__(self, key, alpha):
        k1, k2, k3 = jr.split(key, 3)
        self.base = jr.normal(k1, (HEADS, WIDTH, INPUTS))
        self.down = jr.normal(k2, (RANK, INPUTS))
        self.up = jr.normal(k3, (HEADS, WIDTH, RANK))
        self.offset = jnp.zeros((HEADS, WIDTH))
        self.alpha = alpha

    def __call__(self, x):
        y = jnp.einsum("hwi,i->hw", self.base, x) + self.offset
        update = jnp.einsum("hwr,ri,i->hw", self.up, self.down, x)
        return y + self.alpha / RANK * update


class HeadNet(eqx.Module):
    heads: LowRankHeads
    gain: jax.Array
    weight: jax.Array
    head: eqx.nn.Linear

    def __init__(self, key):
        k1, k2, k3 = jr.split(key, 3)
        self.heads = LowRankHeads(k1, alpha=4.0)
        self.gain = jnp.ones((HEADS, 1))
        self.weight = jr.normal(k2, (INPUTS, HEADS, WIDTH))
        self.head = eqx.nn.Linear(INPUTS, OUTPUTS, key=k3)

    def __call__(self, x):
        y = jnp.cos(self.heads(x)) * self.gain
        return self.head(x + jnp.tensordot(self.weight, y, axes=2))


class LoRADense(nnx.Module):
    def __init__(self, features_in, features_out, rank, *, rngs):
        self.dense = nnx.Linear(features_in, features_out, rngs=rngs)
        self.lora_a = nnx.LoRAParam(rngs.params.normal((features_in, rank)))
        self.lora_b = nnx.LoRAParam(rngs.params.normal((rank, features_out)))
        self.scaling = 2.0

    def __call__(self, x):
        low = (x @ self.lora_a[...]) @ self.lora_b[...]
        return self.dense(x) + self.scaling * low


class Adapted(nnx.Module):
    def __init__(self, rngs):
        self.wide = LoRADense(INPUTS, HEADS * WIDTH, RANK, rngs=rngs)
        self.head_scale = nnx.Param(jnp.ones((HEADS,)))
        self.narrow = nnx.Linear(
            HEADS * WIDTH, INPUTS, use_bias=False, rngs=rngs
        )
        self.final = nnx.Linear(INPUTS, OUTPUTS, rngs=rngs)

    def __call__(self, x):
        h = jnp.cos(self.wide(x))
        h = h * jnp.repeat(self.head_scale[...], WIDTH)
        return self.final(self.narrow(h) + x)


def left():
    return HeadNet(jr.key(0))


def right():
    return Adapted(nnx.Rngs(1))


def inputs():
    return np.random.default_rng(0).normal(size=(3, INPUTS))


def truth(take: Sources) -> dict[str, Layout]:
    merged, last = HEADS * WIDTH, Transpose((1, 0))
    flat, flat_rank = Reshape((merged, INPUTS)), Reshape((merged, RANK))
    return {
        "wide.dense.kernel": take("heads.base").then(flat, last),
        "wide.dense.bias": take("heads.offset").then(Reshape((merged,))),
        "wide.lora_a": take("heads.down").then(last),
        "wide.lora_b": take("heads.up").then(flat_rank, last),
        "head_scale": take("gain").then(Reshape((HEADS,))),
        "narrow.kernel": take("weight").then(Reshape((INPUTS, merged)), last),
        **linear(take, "head", "final"),
    }


PAIRS = (
    Pair(
        "low-rank layers with merged axes",
        __name__,
        left,
        right,
        inputs,
        truth,
        faults=(
            Fault(
                "missing scale",
                "right",
                "return self.dense(x) + self.scaling * low",
                "return self.dense(x) + low",
            ),
            Fault(
                "sine instead of cosine",
                "left",
                "y = jnp.cos(self.heads(x)) * self.gain",
                "y = jnp.sin(self.heads(x)) * self.gain",
            ),
            Fault(
                "missing residual",
                "right",
                "return self.final(self.narrow(h) + x)",
                "return self.final(self.narrow(h))",
            ),
            Fault(
                "scales of the heads are tiled",
                "right",
                "h = h * jnp.repeat(self.head_scale[...], WIDTH)",
                "h = h * jnp.tile(self.head_scale[...], WIDTH)",
            ),
        ),
    ),
)
