"""Arrays that a dtype has rounded limit the precision in float64."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common import compare
from common.layouts import Layout, Transpose

XS = np.random.default_rng(0).normal(size=(4, 3))


class Scaling(eqx.Module):
    """Computes its table anew, in any dtype."""

    linear: eqx.nn.Linear

    def __call__(self, x):
        return self.linear(x * jnp.sin(jnp.arange(3, dtype=x.dtype)))


class Scaled(nnx.Module):
    """Has the table as an array, which its dtype has rounded."""

    def __init__(self, factor=1.0):
        self.linear = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
        self.table = jnp.sin(jnp.arange(3, dtype="float32")) * factor
        self.unused = jnp.full(2, 0.1, "bfloat16")

    def __call__(self, x):
        return self.linear(x * self.table)


def test_a_rounded_table_is_a_ceiling():
    """And a table of other numbers is still found."""
    with jax.enable_x64(False):
        linear = eqx.nn.Linear(3, 3, key=jr.key(0))
    for factor, ok in ((1.0, True), (1.001, False)):
        report = compare(
            Scaling(linear),
            Scaled(factor),
            XS,
            rules={
                "linear.kernel": Layout.of(
                    "linear.weight", (3, 3), Transpose((1, 0))
                ),
                "linear.bias": Layout.of("linear.bias", (3,)),
            },
            steps=1,
            carry=True,
        )
        assert report.ok is ok, str(report)
        note = "precision ceiling of flax: float32 at the array table"
        assert note in report.notes
