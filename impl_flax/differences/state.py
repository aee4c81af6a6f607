"""NNX modules in JAX's own transformations, and their Variables."""

import warnings

import jax
import jax.numpy as jnp
from flax import nnx


def batch_norm_jax_jit() -> float:
    """Returns which share of an update of the running mean is lost.

    The module is an argument of `jax.jit`, which takes it as a pytree: the
    call works on a copy. `nnx.jit` writes the update back.
    """
    norm = nnx.BatchNorm(1, momentum=0.9, rngs=nnx.Rngs(0))
    x = jnp.ones((8, 1))
    jax.jit(lambda norm, x: norm(x))(norm, x)
    by_jax = norm.mean[0]
    nnx.jit(lambda norm, x: norm(x))(norm, x)
    by_nnx = norm.mean[0] - by_jax
    return float(1 - by_jax / by_nnx)


def variable_dtype() -> float:
    """Returns the error of 1/3 after `variable[...] = x`, in float64.

    The Variable was float32, as by default, and stays so. JAX warns that
    the cast will be an error one day.
    """
    with (
        jax.enable_x64(True),
        warnings.catch_warnings(action="ignore", category=FutureWarning),
    ):
        variable = nnx.Param(jnp.zeros((), jnp.float32))
        variable[...] = jnp.array(1 / 3, jnp.float64)
        return float(variable[...]) - 1 / 3


def param_dtype() -> float:
    """Returns the bytes of an element of a weight, under x64."""
    with jax.enable_x64(True):
        linear = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        return float(linear.kernel[...].itemsize)
