"""Stock `nnx.BatchNorm`, which normalises a batch with channels last."""

import warnings

import jax
import jax.numpy as jnp
import jax.random as jr
from flax import nnx


def batch_norm_float64() -> float:
    """Returns how far evaluation is off in a float64 model.

    With momentum 0 it should repeat the training output, but the statistics
    between the two are stored in float32. JAX warns of that cast.
    """
    with (
        jax.enable_x64(True),
        warnings.catch_warnings(action="ignore", category=FutureWarning),
    ):
        norm = nnx.BatchNorm(
            64, momentum=0.0, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
        )
        x = jr.normal(jr.key(0), (32, 64), jnp.float64)
        trained = norm(x)
        evaluated = norm(x, use_running_average=True)
        return float(jnp.max(jnp.abs(evaluated - trained)))


def batch_norm_mean_1e3() -> float:
    """Returns the largest relative error of a variance, for mean 1e3.

    The data's standard deviation is 1. With momentum 0 the layer stores the
    variance as it computes it, `E[x^2] - E[x]^2` by default.
    """
    x = 1e3 + jr.normal(jr.key(0), (512, 64))
    norm = nnx.BatchNorm(64, momentum=0.0, rngs=nnx.Rngs(0))
    norm(x)
    two_pass = jnp.mean(jnp.square(x - jnp.mean(x, 0)), 0)
    return float(jnp.max(jnp.abs(norm.var[...] / two_pass - 1)))


def batch_norm_mean_1e4() -> float:
    """Returns the largest relative error of a variance, for mean 1e4.

    As `batch_norm_mean_1e3`. In half of the channels the variance is
    clipped to 0.
    """
    x = 1e4 + jr.normal(jr.key(0), (512, 64))
    norm = nnx.BatchNorm(64, momentum=0.0, rngs=nnx.Rngs(0))
    norm(x)
    two_pass = jnp.mean(jnp.square(x - jnp.mean(x, 0)), 0)
    return float(jnp.max(jnp.abs(norm.var[...] / two_pass - 1)))


def batch_norm_biased() -> float:
    """Returns how far the stored variance of {0, 2} is below the unbiased.

    The unbiased variance is 2, the biased one 1. With momentum 0 the last
    batch is all that is stored.
    """
    norm = nnx.BatchNorm(1, momentum=0.0, rngs=nnx.Rngs(0))
    x = jnp.array([[0.0], [2.0]])
    norm(x)
    return float(jnp.var(x, ddof=1) - norm.var[0])
