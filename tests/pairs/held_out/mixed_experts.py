"""A mixture of experts, stacked against a list of modules; held out.

The left model has bare arrays with an axis of experts, and a mask token that
it never uses. The right model has a list of experts, and a router without a
class of its own. Both return a dict with an auxiliary loss.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Index, Layout, Transpose
from tests.pairs.bank import Fault, Pair, Sources, linear, norm

WIDTH, HIDDEN, EXPERTS, LENGTH = 4, 5, 3, 3


class Experts(eqx.Module):
    w1: jax.Array
    b1: jax.Array
    w2: jax.Array
    b2: jax.Array

    def __init__(self, key):
        k1, k2 = jr.split(key)
        self.w1 = jr.normal(k1, (EXPERTS, WIDTH, HIDDEN))
        self.b1 = jnp.zeros((EXPERTS, HIDDEN))
        self.w2 = jr.normal(k2, (EXPERTS, HIDDEN, WIDTH))
        self.b2 = jnp.zeros((EXPERTS, WIDTH))

    def __call__(self, x):
        h = jnp.einsum("td,edh->teh", x, self.w1) + self.b1
        h = jax.nn.mish(h)
        return jnp.einsum("teh,ehd->ted", h, self.w2) + self.b2


class MixtureLayer(eqx.Module):
    mask_token: jax.Array
    pre_norm: eqx.nn.LayerNorm
    router: eqx.nn.Linear
    experts: Experts
    classify: eqx.nn.Linear

    def __init__(self, key):
        k1, k2, k3, k4 = jr.split(key, 4)
        self.mask_token = jr.normal(k1, (WIDTH,))
        self.pre_norm = eqx.nn.LayerNorm(WIDTH)
        self.router = eqx.nn.Linear(WIDTH, EXPERTS, use_bias=False, key=k2)
        self.experts = Experts(k3)
        self.classify = eqx.nn.Linear(WIDTH, 2, key=k4)

    def __call__(self, x):
        y = jax.vmap(self.pre_norm)(x)
        routing = jax.nn.softmax(jax.vmap(self.router)(y))
        x = x + jnp.einsum("te,ted->td", routing, self.experts(y))
        usage = routing.mean(axis=0)
        return {
            "balance": EXPERTS * jnp.sum(usage**2),
            "logits": self.classify(x.mean(axis=0)),
        }


class Expert(nnx.Module):
    def __init__(self, rngs):
        self.expand = nnx.Linear(WIDTH, HIDDEN, rngs=rngs)
        self.reduce = nnx.Linear(HIDDEN, WIDTH, rngs=rngs)

    def __call__(self, x):
        h = self.expand(x)
        return self.reduce(h * jnp.tanh(nnx.softplus(h)))


class MoE(nnx.Module):
    def __init__(self, count, *, rngs):
        self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.gate = nnx.Param(rngs.params.normal((WIDTH, count)))
        self.expert = nnx.List([Expert(rngs) for _ in range(count)])
        self.head = nnx.Linear(WIDTH, 2, rngs=rngs)

    def __call__(self, tokens):
        normed = self.norm(tokens)
        probabilities = nnx.softmax(normed @ self.gate[...], axis=-1)
        mixed = tokens
        for i, expert in enumerate(self.expert):
            mixed = mixed + probabilities[..., i : i + 1] * expert(normed)
        load = jnp.mean(probabilities, axis=1)
        return {
            "balance": jnp.square(load).sum(-1) * len(self.expert),
            "logits": self.head(jnp.mean(mixed, axis=1)),
        }


def left():
    return MixtureLayer(jr.key(0))


def right():
    return MoE(EXPERTS, rngs=nnx.Rngs(1))


def inputs():
    return np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH))


def truth(take: Sources) -> dict[str, Layout]:
    made = {"gate": take("router.weight").then(Transpose((1, 0)))}
    made |= norm(take, "pre_norm", "norm") | linear(take, "classify", "head")
    for i in range(EXPERTS):
        for j, name in ((1, "expand"), (2, "reduce")):
            new, pick = f"expert.{i}.{name}", Index(0, i)
            made[f"{new}.kernel"] = take(f"experts.w{j}").then(pick)
            made[f"{new}.bias"] = take(f"experts.b{j}").then(pick)
    return made


PAIRS = (
    Pair(
        "stacked experts against a list",
        __name__,
        left,
        right,
        inputs,
        truth,
        left_only=("mask_token",),
        faults=(
            Fault(
                "another activation",
                "right",
                "return self.reduce(h * jnp.tanh(nnx.softplus(h)))",
                "return self.reduce(h * jax.nn.sigmoid(nnx.softplus(h)))",
            ),
            Fault(
                "experts see tokens that are not normalized",
                "right",
                "probabilities[..., i : i + 1] * expert(normed)",
                "probabilities[..., i : i + 1] * expert(tokens)",
                line="self.expand(x)",
            ),
            Fault(
                "missing residual",
                "left",
                'x = x + jnp.einsum("te,ted->td", routing, self.experts(y))',
                'x = jnp.einsum("te,ted->td", routing, self.experts(y))',
            ),
            Fault(
                "balance is not squared",
                "left",
                "EXPERTS * jnp.sum(usage**2)",
                "EXPERTS * jnp.sum(usage**3)",
            ),
        ),
    ),
)
