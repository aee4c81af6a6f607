"""Pairs of models that are not the same function, however they are mapped.

Some have the same arrays, and differ in one operation. The others would need
sums, products or signs of weights, which no rearrangement gives.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Layout
from common.native import NativeModel
from tests.pairs.bank import linear

WIDTH, HIDDEN, CLASSES = 4, 5, 3


@dataclasses.dataclass(frozen=True)
class Negative:
    """Two models that are not the same function.

    Attributes:
        name: what differs.
        left: makes the Equinox model, or the model and its state.
        right: makes the NNX module.
        names: the paths of the left model's linear layers and of their
            counterparts, if the arrays are the same.
        left_line: text of the left line that `diff` should name, if any.
        right_line: text of the right line that `diff` should name, if any.
        symmetric: whether the outputs agree when all arrays of one shape hold
            the same values, so that only other weights show the difference.
    """

    name: str
    left: Callable[[], Any]
    right: Callable[[], Any]
    names: Mapping[str, str] | None = None
    left_line: str = ""
    right_line: str = ""
    symmetric: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts, of which the line that `diff` names should contain one."""
        return tuple(x for x in (self.left_line, self.right_line) if x)

    @property
    def inputs(self) -> Callable[[], Any]:
        """Makes the batch that both models take."""
        return inputs

    def natural(self) -> dict[str, Layout] | None:
        """Returns the mapping that the names suggest, if there is one."""
        if self.names is None:
            return None
        infos = NativeModel(self.left()).infos

        def take(name: str) -> Layout:
            return Layout.of(name, infos[name].value.shape)

        made = {}
        for old, new in self.names.items():
            made |= linear(take, old, new)
        return made


def inputs() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, WIDTH))


class Branches(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self, key):
        k1, k2, k3 = jr.split(key, 3)
        self.first = eqx.nn.Linear(WIDTH, WIDTH, key=k1)
        self.second = eqx.nn.Linear(WIDTH, WIDTH, key=k2)
        self.out = eqx.nn.Linear(WIDTH, CLASSES, key=k3)

    def __call__(self, x):
        a = jnp.tanh(self.first(x))
        b = jnp.tanh(self.second(x))
        return self.out(a + b)


class Sum(nnx.Module):
    def __init__(self, width=WIDTH, *, rngs):
        self.a = nnx.Linear(WIDTH, width, rngs=rngs)
        self.b = nnx.Linear(WIDTH, width, rngs=rngs)
        self.head = nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.head(self.joined(jnp.tanh(self.a(x)), nnx.tanh(self.b(x))))

    def joined(self, a, b):
        return a + b


class Difference(Sum):
    def joined(self, a, b):
        return a - b


class Cubic(Sum):
    def joined(self, a, b):
        return a + b + (a - b) ** 3


class Residual(eqx.Module):
    inner: eqx.nn.Linear
    outer: eqx.nn.Linear

    def __init__(self, key):
        k1, k2 = jr.split(key)
        self.inner = eqx.nn.Linear(WIDTH, WIDTH, key=k1)
        self.outer = eqx.nn.Linear(WIDTH, CLASSES, key=k2)

    def __call__(self, x):
        h = jax.nn.softplus(self.inner(x))
        return self.outer(x + h)


class Plain(nnx.Module):
    def __init__(self, rngs):
        self.fc1 = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.fc2 = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = nnx.softplus(self.fc1(x))
        return self.fc2(x)


class Swish(Plain):
    def __call__(self, x):
        h = nnx.swish(self.fc1(x))
        return self.fc2(x + h)


class Normalized(eqx.Module):
    inner: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    outer: eqx.nn.Linear

    def __init__(self, key):
        k1, k2 = jr.split(key)
        self.inner = eqx.nn.Linear(WIDTH, HIDDEN, key=k1)
        self.norm = eqx.nn.BatchNorm(HIDDEN, "batch", mode="ema")
        self.outer = eqx.nn.Linear(HIDDEN, CLASSES, key=k2)

    def __call__(self, x, state):
        x, state = self.norm(self.inner(x), state)
        return self.outer(jax.nn.softplus(x)), state


class Folded(nnx.Module):
    def __init__(self, rngs):
        self.fc1 = nnx.Linear(WIDTH, HIDDEN, rngs=rngs)
        self.fc2 = nnx.Linear(HIDDEN, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.fc2(nnx.softplus(self.fc1(x)))


class WeightNormed(nnx.Module):
    def __init__(self, rngs):
        self.direction = nnx.Param(rngs.params.normal((WIDTH, WIDTH)))
        self.length = nnx.Param(jnp.ones((WIDTH,)))
        self.bias = nnx.Param(jnp.zeros((WIDTH,)))
        self.fc2 = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, x):
        v = self.direction[...]
        kernel = self.length[...] * v / jnp.linalg.norm(v, axis=0)
        h = nnx.softplus(x @ kernel + self.bias[...])
        return self.fc2(x + h)


def branches():
    return Branches(jr.key(0))


def residual():
    return Residual(jr.key(0))


def normalized():
    return eqx.nn.make_with_state(Normalized)(jr.key(0))


BRANCHES = {"first": "a", "second": "b", "out": "head"}
LAYERS = {"inner": "fc1", "outer": "fc2"}

NEGATIVES = (
    Negative(
        "residual missing",
        residual,
        lambda: Plain(nnx.Rngs(1)),
        LAYERS,
        "self.outer(x + h)",
        "self.fc2(x)",
    ),
    Negative(
        "another activation",
        residual,
        lambda: Swish(nnx.Rngs(1)),
        LAYERS,
        "jax.nn.softplus(self.inner(x))",
        "nnx.swish(self.fc1(x))",
    ),
    Negative(
        "a - b against a + b",
        branches,
        lambda: Difference(rngs=nnx.Rngs(1)),
        BRANCHES,
        "self.out(a + b)",
        "return a - b",
    ),
    Negative(
        "a + b + (a - b)**3 against a + b",
        branches,
        lambda: Cubic(rngs=nnx.Rngs(1)),
        BRANCHES,
        "self.out(a + b)",
        "return a + b + (a - b) ** 3",
        symmetric=True,
    ),
    Negative(
        "another width",
        branches,
        lambda: Sum(HIDDEN, rngs=nnx.Rngs(1)),
    ),
    Negative(
        "folded batch norm",
        normalized,
        lambda: Folded(nnx.Rngs(1)),
    ),
    Negative(
        "weight norm against plain weights",
        residual,
        lambda: WeightNormed(nnx.Rngs(1)),
    ),
)
