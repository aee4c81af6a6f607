"""Small models as users write them, in both libraries.

Each class has its counterpart in the other library under the same name with
another prefix. Arrays that mean the same have the same canonical name.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

RNG = np.random.default_rng(0)
XS = RNG.normal(size=(8, 3)).astype("float32")
YS = RNG.normal(size=(8, 2)).astype("float32")
TOKENS = RNG.integers(0, 5, (8, 4))


class EqxStateful(eqx.Module):
    """BatchNorm, Linear and Dropout: state and keys passed explicitly."""

    norm: eqx.nn.BatchNorm
    linear: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self, key):
        self.norm = eqx.nn.BatchNorm(3, "batch", mode="batch")
        self.linear = eqx.nn.Linear(3, 2, key=key)
        self.dropout = eqx.nn.Dropout(0.5)

    def __call__(self, x, state, *, key=None):
        x, state = self.norm(x, state)
        return self.dropout(self.linear(x), key=key), state


class NnxStateful(nnx.Module):
    """The same, with Variables that the call updates in place."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.linear = nnx.Linear(3, 2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.linear(self.norm(x)))


class EqxTokens(eqx.Module):
    """An embedding of integers, whose output is a dict."""

    embed: eqx.nn.Embedding
    head: eqx.nn.Linear

    def __init__(self, key):
        first, second = jr.split(key)
        self.embed = eqx.nn.Embedding(5, 3, key=first)
        self.head = eqx.nn.Linear(3, 2, key=second)

    def __call__(self, tokens):
        x = jnp.mean(jax.vmap(self.embed)(tokens), 0)
        return {"mean": x, "logits": self.head(x)}


class NnxTokens(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(5, 3, rngs=rngs)
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, tokens):
        x = jnp.mean(self.embed(tokens), 1)
        return {"mean": x, "logits": self.head(x)}


class EqxTrees(eqx.Module):
    """A dict of inputs, and a mode given as an argument of the call."""

    linear: eqx.nn.Linear

    def __init__(self, key):
        self.linear = eqx.nn.Linear(3, 2, key=key)

    def __call__(self, xs, train):
        scale = 2.0 if train else 1.0
        return scale * self.linear(xs["x"]) * xs["weight"]


class NnxTrees(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, xs, train):
        scale = 2.0 if train else 1.0
        return scale * self.linear(xs["x"]) * xs["weight"][:, None]


class EqxMlp(eqx.Module):
    layers: list

    def __init__(self, key, size=4):
        first, second = jr.split(key)
        self.layers = [
            eqx.nn.Linear(3, size, key=first),
            jax.nn.relu,
            eqx.nn.Linear(size, 2, key=second),
        ]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class NnxMlp(nnx.Module):
    """The same model under other names."""

    def __init__(self, rngs, size=4):
        self.hidden = nnx.Linear(3, size, rngs=rngs)
        self.output = nnx.Linear(size, 2, rngs=rngs)

    def __call__(self, x):
        return self.output(nnx.relu(self.hidden(x)))


MLP_RULES = """
layers.0 -> hidden
layers.2 -> output
"""
"""The rules by which `NnxMlp` loads a run of `EqxMlp`."""


def make(name: str, library: str, seed: int = 0) -> Any:
    """Returns a model in float32: `make("Mlp", "equinox")`."""
    with jax.enable_x64(False):
        if library == "flax":
            return globals()[f"Nnx{name}"](rngs=nnx.Rngs(seed))
        model = globals()[f"Eqx{name}"]
        if name == "Stateful":
            return eqx.nn.make_with_state(model)(jr.key(seed))
        return model(jr.key(seed))


def inputs_of(name: str) -> Any:
    """Returns a batch of inputs of a model."""
    if name == "Tokens":
        return TOKENS
    if name == "Trees":
        return {"x": XS, "weight": XS[:, 0]}
    return XS


def loss_of(name: str) -> Any:
    """Returns a loss of a model."""
    return dict_loss if name == "Tokens" else "mse"


def dict_loss(outputs, targets):
    """A loss of the outputs of `Tokens`."""
    return jnp.mean((outputs["logits"] - targets) ** 2)


MODELS = ("Stateful", "Tokens", "Trees", "Mlp")
