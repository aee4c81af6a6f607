"""Gradients that only one of two programs stops."""

import jax
import jax.numpy as jnp

from common import diff
from tests.divergence.programs import line_of
from tests.divergence.test_cases import draw, lines


def test_a_gradient_that_one_program_stops():
    def centered(x, stop):
        mean = x.mean()
        if stop:
            mean = jax.lax.stop_gradient(mean)  # stopped
        return jnp.sum(jnp.tanh(x - mean) ** 2)

    found = diff(
        jax.grad(lambda x: centered(x, False)),
        jax.grad(lambda x: centered(x, True)),
        draw(6),
    )
    assert found.origins[0].reason == "stop_gradient only on the right"
    assert line_of(centered, "# stopped") in lines(found)


def test_the_maximum_of_a_softmax_is_no_stopped_gradient():
    def softmax(x, scale, stop):
        top = x.max(-1, keepdims=True)
        if stop:
            top = jax.lax.stop_gradient(top)
        e = jnp.exp(scale * (x - top))
        y = e / e.sum(-1, keepdims=True)
        if not stop:
            return jnp.sum(jnp.tanh(y) ** 2)
        half = jax.lax.stop_gradient(y) / 2
        return jnp.sum(jnp.tanh(y / 2 + half) ** 2)

    found = diff(
        jax.grad(lambda x: softmax(x, 1.0, True)),
        jax.grad(lambda x: softmax(x, 1.0, False)),
        draw(3, 4),
    )
    (origin, *_) = found.origins
    assert origin.reason == "stop_gradient only on the left"
    assert origin.right is not None and origin.right.primitive == "div"
