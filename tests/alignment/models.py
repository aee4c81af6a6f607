"""Small models of both libraries, each a function of arrays by name."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from common.alignment import align

Function = Callable[[Mapping[str, Any], Any], Any]
Shapes = Mapping[str, tuple[int, ...]]


class EquinoxModel(eqx.Module):
    """Calls a function of arrays by name on one example."""

    p: dict[str, jax.Array]
    function: Function = eqx.field(static=True)

    def __call__(self, x):
        return self.function(self.p, x)


class FlaxModel(nnx.Module):
    """Calls a function of arrays by name on each example of a batch."""

    def __init__(self, arrays, function):
        self.p = nnx.data({k: nnx.Param(x) for k, x in arrays.items()})
        self.function = function

    def __call__(self, xs):
        arrays = {name: x[...] for name, x in self.p.items()}
        return jax.vmap(lambda x: self.function(arrays, x))(xs)


def draw(shapes: Shapes, seed: int) -> dict[str, jax.Array]:
    """Returns random arrays of these shapes."""
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(0.3 * rng.normal(size=shape), jnp.float32)
        for name, shape in shapes.items()
    }


def left(function: Function, **shapes: tuple[int, ...]) -> EquinoxModel:
    """Makes an Equinox model with arrays of these shapes."""
    return EquinoxModel(draw(shapes, 0), function)


def right(function: Function, **shapes: tuple[int, ...]) -> FlaxModel:
    """Makes an NNX module with arrays of these shapes."""
    return FlaxModel(draw(shapes, 1), function)


def inputs(*shape: int) -> np.ndarray:
    """Returns a batch of random inputs."""
    return np.random.default_rng(3).normal(size=shape)


def aligned(functions, shapes, xs, **options) -> tuple[Any, Any, Any]:
    """Aligns an Equinox model and an NNX module of two functions."""
    models = (
        left(functions[0], **shapes[0]),
        right(functions[1], **shapes[1]),
    )
    return align(*models, xs, progress=False, **options), *models


def layer(p, x):
    """A layer with a residual connection, and a linear one."""
    return (x + jnp.tanh(x @ p["w"] + p["b"])) @ p["v"]


LAYER = {"w": (6, 6), "b": (6,), "v": (6, 3)}


def without_residual(p, x):
    """The same layers without the residual connection."""
    return jnp.tanh(x @ p["w"] + p["b"]) @ p["v"]


WIDTH, HEADS, TOKENS = 8, 2, 3


def attend(q, k, v):
    """Computes multi-head attention."""
    scores = jnp.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    return jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores), v)


def heads(x):
    """Splits the last axis into heads."""
    return x.reshape(x.shape[0], HEADS, -1)


def fused(p, x):
    """One projection to queries, keys and values, in this order."""
    parts = jnp.split(x @ p["qkv"].T + p["qkv_bias"], 3, -1)
    y = attend(*map(heads, parts)).reshape(x.shape)
    return x + y @ p["out"].T + p["out_bias"]


def interleaved(p, x):
    """One projection, in which each head has its query, key and value."""
    y = (x @ p["qkv"].T + p["qkv_bias"]).reshape(len(x), HEADS, 3, -1)
    y = attend(y[:, :, 0], y[:, :, 1], y[:, :, 2]).reshape(x.shape)
    return x + y @ p["out"].T + p["out_bias"]


def separate(p, x):
    """Three projections."""
    parts = (x @ p[name] + p[f"{name}_bias"] for name in "qkv")
    y = attend(*map(heads, parts)).reshape(x.shape)
    return x + y @ p["out"] + p["out_bias"]


def with_heads(p, x):
    """Three projections whose arrays have an axis of heads."""
    q, k, v = (
        jnp.einsum("te,ehd->thd", x, p[name]) + p[f"{name}_bias"]
        for name in "qkv"
    )
    y = jnp.einsum("thd,hde->te", attend(q, k, v), p["out"])
    return x + y + p["out_bias"]


SIZE = WIDTH // HEADS
ATTENTION: dict[Function, Shapes] = {
    fused: {
        "qkv": (3 * WIDTH, WIDTH),
        "qkv_bias": (3 * WIDTH,),
        "out": (WIDTH, WIDTH),
        "out_bias": (WIDTH,),
    },
    separate: {
        **{name: (WIDTH, WIDTH) for name in "qkv"},
        **{f"{name}_bias": (WIDTH,) for name in "qkv"},
        "out": (WIDTH, WIDTH),
        "out_bias": (WIDTH,),
    },
    with_heads: {
        **{name: (WIDTH, HEADS, SIZE) for name in "qkv"},
        **{f"{name}_bias": (HEADS, SIZE) for name in "qkv"},
        "out": (HEADS, SIZE, WIDTH),
        "out_bias": (WIDTH,),
    },
}
"""The arrays of each way of writing attention."""
ATTENTION[interleaved] = ATTENTION[fused]
