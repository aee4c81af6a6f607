"""Stock Equinox attention on one sequence."""

import math

import equinox as eqx
import jax.numpy as jnp

from common.differences import Family

family = Family("equinox", "sequence")


@family.known_difference(
    name="rope-theta",
    layer="RotaryPositionalEmbedding",
    quantity="sine of a rotation angle",
    what="A process-wide cache holds the angles by size and dtype but not by "
    "theta, so a layer can use the theta of another layer of its size.",
    expected=math.sin(0.1),
    measured=math.sin(0.01),
    origin="sin(1 / sqrt(1e4)) instead of sin(1 / sqrt(1e2))",
    related=("equinox #568",),
    ours="`impl_equinox.layers.RotaryPositionalEmbedding` has no cache.",
)
def rope_theta() -> float:
    """Returns the sine of an angle that should be 1 / sqrt(theta) = 0.1.

    A layer of the same size with theta 1e4 is called first. The size is an
    uncommon one, because this call affects every other layer of the size.
    """
    x = jnp.zeros((2, 44)).at[1, 11].set(1.0)
    eqx.nn.RotaryPositionalEmbedding(44, theta=1e4)(x)
    y = eqx.nn.RotaryPositionalEmbedding(44, theta=1e2)(x)
    return float(y[1, 33])
