"""Language models with a tied embedding, against tied and untied ones.

The left model is a small recurrent-free language model with `eqx.nn.Shared`.
One right model calls `attend`; the other has an output layer of its own.
The latter's `nnx.Embed` casts to float32, which is its default.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Layout, Transpose
from tests.pairs.bank import Fault, Pair, Sources

VOCAB, WIDTH, LENGTH = 7, 6, 5


class Mixing(eqx.Module):
    """Attention to the past with one head and no softmax scale."""

    norm: eqx.nn.RMSNorm
    to_query: eqx.nn.Linear
    to_value: eqx.nn.Linear
    dropout: eqx.nn.Dropout | None
    activation: Callable[[jax.Array], jax.Array]

    def __init__(self, key):
        k1, k2 = jr.split(key)
        self.norm = eqx.nn.RMSNorm(WIDTH, eps=1e-6, use_bias=False)
        self.to_query = eqx.nn.Linear(WIDTH, WIDTH, use_bias=False, key=k1)
        self.to_value = eqx.nn.Linear(WIDTH, WIDTH, use_bias=False, key=k2)
        self.dropout = None
        self.activation = jax.nn.silu

    def __call__(self, x):
        y = jax.vmap(self.norm)(x)
        query = jax.vmap(self.to_query)(y)
        scores = query @ y.T
        past = jnp.tril(jnp.ones(scores.shape, bool))
        scores = jnp.where(past, scores, -jnp.inf)
        values = self.activation(jax.vmap(self.to_value)(y))
        return x + jax.nn.softmax(scores) @ values


class LanguageModel(eqx.Module):
    shared: eqx.nn.Shared
    mixings: tuple[Mixing, ...]

    def __init__(self, key):
        k1, k2, k3 = jr.split(key, 3)
        embedding = eqx.nn.Embedding(VOCAB, WIDTH, key=k1)
        unembed = eqx.nn.Linear(WIDTH, VOCAB, use_bias=False, key=k1)
        self.shared = eqx.nn.Shared(
            (embedding, unembed),
            where=lambda pair: pair[1].weight,
            get=lambda pair: pair[0].weight,
        )
        self.mixings = (Mixing(k2), Mixing(k3))

    def __call__(self, tokens):
        embedding, unembed = self.shared()
        x = jax.vmap(embedding)(tokens)
        for mixing in self.mixings:
            x = mixing(x)
        return jax.vmap(unembed)(x)


class Layer(nnx.Module):
    def __init__(self, width, act, rngs):
        self.ln = nnx.RMSNorm(width, rngs=rngs)
        self.q = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.v = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.act = act
        self.extra = None

    def __call__(self, h):
        n = self.ln(h)
        logits = jnp.einsum("btd,bsd->bts", self.q(n), n)
        steps = jnp.arange(h.shape[1])
        logits = logits + jnp.where(steps[:, None] >= steps, 0.0, -1e30)
        mix = jax.nn.softmax(logits, axis=-1)
        return h + jnp.einsum("bts,bsd->btd", mix, self.act(self.v(n)))


class Decoder(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, tie: bool = True, dtype=None):
        self.wte = nnx.Embed(VOCAB, WIDTH, dtype=dtype, rngs=rngs)
        self.first = Layer(WIDTH, nnx.swish, rngs)
        self.second = Layer(WIDTH, nnx.swish, rngs)
        self.lm_head = nnx.data(None)
        if not tie:
            self.lm_head = nnx.Linear(WIDTH, VOCAB, use_bias=False, rngs=rngs)

    def __call__(self, input_ids):
        h = self.wte(input_ids)
        h = self.second(self.first(h))
        if self.lm_head is None:
            return self.wte.attend(h)
        return self.lm_head(h)


def left():
    return LanguageModel(jr.key(0))


def right():
    return Decoder(nnx.Rngs(1), dtype=jnp.float64)


def right_untied():
    return Decoder(nnx.Rngs(2), tie=False)


def inputs():
    return np.random.default_rng(0).integers(0, VOCAB, (3, LENGTH))


def truth(take: Sources) -> dict[str, Layout]:
    made = {"wte.embedding": take("shared.pytree.0.weight")}
    for i, name in enumerate(("first", "second")):
        made[f"{name}.ln.scale"] = take(f"mixings.{i}.norm.weight")
        for new, old in {"q": "to_query", "v": "to_value"}.items():
            made[f"{name}.{new}.kernel"] = take(
                f"mixings.{i}.{old}.weight"
            ).then(Transpose((1, 0)))
    return made


def truth_untied(take: Sources) -> dict[str, Layout]:
    head = take("shared.pytree.0.weight").then(Transpose((1, 0)))
    return truth(take) | {"lm_head.kernel": head}


FAULTS = (
    Fault(
        "future is visible",
        "left",
        "jnp.tril(jnp.ones(scores.shape, bool))",
        "jnp.ones(scores.shape, bool)",
        line="jnp.where(past, scores, -jnp.inf)",
        other="jnp.where(steps[:, None] >= steps, 0.0, -1e30)",
    ),
    Fault(
        "values are not activated",
        "left",
        "self.activation(jax.vmap(self.to_value)(y))",
        "jax.vmap(self.to_value)(y)",
        other="self.act(self.v(n))",
    ),
    Fault(
        "eps",
        "left",
        "eqx.nn.RMSNorm(WIDTH, eps=1e-6, use_bias=False)",
        "eqx.nn.RMSNorm(WIDTH, eps=1e-3, use_bias=False)",
        line="jax.vmap(self.norm)(x)",
    ),
    Fault(
        "residual of the normed values",
        "left",
        "return x + jax.nn.softmax(scores) @ values",
        "return y + jax.nn.softmax(scores) @ values",
    ),
)

PAIRS = (
    Pair(
        "tied embedding against a tied one",
        __name__,
        left,
        right,
        inputs,
        truth,
        faults=FAULTS,
    ),
    Pair(
        "tied embedding against an untied one",
        __name__,
        left,
        right_untied,
        inputs,
        truth_untied,
        ceiling="float32",
        faults=FAULTS,
    ),
)
