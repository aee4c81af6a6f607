"""Programs that the tests of `diff` compare."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np

from common.divergence.record import Node

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4))
W = RNG.normal(size=(4, 4))


def line_of(function, text):
    """The number of the line of a function that has a text in it."""
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


def norm(x, eps=1e-5):
    mean = jnp.mean(x, -1, keepdims=True)
    var = jnp.mean((x - mean) ** 2, -1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + eps)


def fast_norm(x, eps=1e-5):
    mean = jnp.mean(x, -1, keepdims=True)
    var = jnp.mean(x * x, -1, keepdims=True) - mean * mean
    return (x - mean) * jax.lax.rsqrt(var + eps)


def first(found) -> tuple[Node, Node]:
    """Both sides of the first origin."""
    origin = found.origins[0]
    assert origin.left is not None and origin.right is not None
    return origin.left, origin.right


def named_lines(found):
    """The lines of the first origin, by side."""
    return tuple(node.frames[0].line for node in first(found))
