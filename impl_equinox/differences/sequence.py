"""Stock Equinox attention, on one sequence."""

import equinox as eqx
import jax.numpy as jnp


def rope_theta() -> float:
    """Returns the sine of an angle that should be 1 / sqrt(theta), 0.1.

    A layer of the same size but of theta 1e4 was called before. That size
    is a rare one, since this spoils all other layers of it.
    """
    x = jnp.zeros((2, 44)).at[1, 11].set(1.0)
    eqx.nn.RotaryPositionalEmbedding(44, theta=1e4)(x)
    y = eqx.nn.RotaryPositionalEmbedding(44, theta=1e2)(x)
    return float(y[1, 33])
