"""Values whose elements are among those of the other program."""

import jax
import jax.numpy as jnp

from common import diff
from tests.divergence.programs import line_of
from tests.divergence.test_cases import draw, lines


def test_experts_that_are_looped_over_or_gathered():
    def looped(x, router, weights):
        shares = jax.nn.softmax(x @ router)
        chosen = jax.nn.one_hot(shares.argmax(-1), len(weights))
        outs = [jax.nn.silu(x @ weight) for weight in weights]
        gains = (shares * chosen).T[..., None]
        return sum(a * b for a, b in zip(gains, outs, strict=True))

    def gathered(x, router, weights):
        shares = jax.nn.softmax(x @ router)
        top, chosen = jax.lax.top_k(shares, 1)
        y = jnp.einsum("td,tkdf->tkf", x, weights[chosen])
        y = jax.nn.gelu(y)  # gelu
        return jnp.sum(top[..., None] * y, 1)

    x, router, weights = draw(9, 4), draw(4, 3), draw(3, 4, 4)
    found = diff(looped, gathered, x, router, weights)
    assert line_of(gathered, "# gelu") in lines(found)
