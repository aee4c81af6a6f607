"""Stock NNX LayerNorm and GroupNorm, with variance E[x^2] - E[x]^2."""

import jax.numpy as jnp
from flax import nnx


def layer_norm_mean_1e4() -> float:
    """Returns the output for 1e4 + 1, where the other feature is 1e4 - 1.

    The variance is 1. E[x^2] is 1e8 + 1, which float32 rounds to 1e8.
    """
    norm = nnx.LayerNorm(2, epsilon=1e-6, rngs=nnx.Rngs(0))
    return float(norm(jnp.array([[1e4 - 1, 1e4 + 1]]))[0, 1])


def group_norm_mean_1e4() -> float:
    """Returns the output for 1e4 + 1, as `layer_norm_mean_1e4`."""
    norm = nnx.GroupNorm(2, num_groups=1, epsilon=1e-6, rngs=nnx.Rngs(0))
    return float(norm(jnp.array([[1e4 - 1, 1e4 + 1]]))[0, 1])


def layer_norm_eps() -> float:
    """Returns the output for 1e-3, where the other feature is -1e-3."""
    norm = nnx.LayerNorm(2, rngs=nnx.Rngs(0))
    return float(norm(jnp.array([[-1e-3, 1e-3]]))[0, 1])


def layer_norm_bfloat16() -> float:
    """Returns the bytes of an output element, for a bfloat16 input."""
    norm = nnx.LayerNorm(4, rngs=nnx.Rngs(0))
    return float(norm(jnp.ones((1, 4), jnp.bfloat16)).itemsize)


def group_norm_reduction_axes() -> float:
    """Returns the output for 1, in a group of -1 and 1.

    It should be 1, but is divided by the deviation of the other group, 3.
    Each of two positions is to be normalised by itself.
    """
    norm = nnx.GroupNorm(
        4, num_groups=2, reduction_axes=(-1,), rngs=nnx.Rngs(0)
    )
    position = jnp.array([-1.0, 1.0, -3.0, 3.0])
    x = jnp.stack([position, position])[None]  # (1, 2, 4)
    return float(norm(x)[0, 0, 1])
