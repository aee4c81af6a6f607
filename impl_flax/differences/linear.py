"""Stock NNX Linear, Embed and PReLU."""

import jax
import jax.numpy as jnp
import jax.random as jr
from flax import nnx


def linear_after_flatten() -> float:
    """Returns the relative error of a Linear behind a flatten.

    The same weight meets features in channels-first and in channels-last
    order; unrelated outputs would differ by the square root of 2.
    """
    linear = nnx.Linear(8 * 8 * 32, 64, use_bias=False, rngs=nnx.Rngs(0))
    x = jr.normal(jr.key(0), (16, 8, 8, 32))  # (B, H, W, C)
    channels_first = jnp.transpose(x, (0, 3, 1, 2))
    expected = linear(channels_first.reshape(16, -1))
    got = linear(x.reshape(16, -1))
    return float(jnp.linalg.norm(got - expected) / jnp.linalg.norm(expected))


def embed_one_row() -> float:
    """Returns 1 if a table of one row does not take a scalar index."""
    embed = nnx.Embed(1, 4, rngs=nnx.Rngs(0))
    try:
        embed(jnp.array(0))
    except ValueError:  # "Cannot broadcast to shape with fewer dimensions"
        return 1.0
    return 0.0


def embed_one_row_index() -> float:
    """Returns the share of numbers that an index out of range gets.

    From a table of one row. A larger table gives NaN.
    """
    embed = nnx.Embed(1, 4, rngs=nnx.Rngs(0))
    return float(jnp.mean(jnp.isfinite(embed(jnp.array([7])))))


def embed_dtype() -> float:
    """Returns the bytes of an output element, of a float64 table.

    The table was float32 when the layer was made, as by default.
    """
    with jax.enable_x64(True):
        embed = nnx.Embed(3, 4, rngs=nnx.Rngs(0))
        embed.embedding.set_value(jnp.ones((3, 4), jnp.float64))
        return float(embed(jnp.array([1])).itemsize)


def prelu_slope() -> float:
    """Returns the slope at the start; the paper's is 0.25."""
    return float(nnx.PReLU().negative_slope[...])
