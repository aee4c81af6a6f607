"""`forwarded` and `kept`: what a traced function passes through."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from common.views.changes import forwarded, is_equal, kept

X, Y = jnp.arange(3.0), jnp.ones(3)


def scan(x, y):
    def body(carry, element):
        return (carry[0], carry[1] + 1), element

    (first, _), ys = lax.scan(body, (x, y), x)
    return first, ys


def swapped_in_a_loop(x, y):
    return lax.fori_loop(0, 2, lambda _, pair: pair[::-1], (x, y))


def kept_in_a_loop(x, y):
    return lax.while_loop(
        lambda pair: pair[1].sum() < 9, lambda p: (p[0], p[1] + 1), (x, y)
    )


def branches(x, y):
    return lax.cond(
        x.sum() > 0, lambda x, y: (x, y), lambda x, y: (x, 2 * y), x, y
    )


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, y: (y, x), [1, 0]),
        (lambda x, y: (x + 0, y), [None, 1]),
        (jax.jit(lambda x, y: (x, x * y)), [0, None]),
        (jax.checkpoint(lambda x, y: (x, x * y)), [0, None]),
        (scan, [0, 0]),
        (swapped_in_a_loop, [None, None]),
        (kept_in_a_loop, [0, None]),
        (branches, [0, None]),
        (lambda x, y: (1.0, lax.optimization_barrier(y)), [None, 1]),
    ],
)
def test_each_output_names_its_input(function, expected):
    assert forwarded(jax.make_jaxpr(function)(X, Y).jaxpr) == expected


def test_arguments_that_are_returned_are_kept():
    def function(pair, y):
        return [pair, 2 * y]

    assert kept(function, [(X, Y), Y]) == [True, False]
    assert kept(lambda x, y: [y, x], [X, Y]) == [False, False]


def test_equal_values_are_the_same():
    assert is_equal([X, Y], [X + 0, Y])
    assert not is_equal(X, Y)
    assert not is_equal(X, X.astype("float32"))
    assert not jax.jit(lambda x: jnp.array(is_equal(x, x)))(X)
