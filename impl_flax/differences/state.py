"""NNX modules under JAX's own transformations, and their Variables."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from common.differences import Family

family = Family("flax", "state")


@family.known_difference(
    name="batch-norm-jax-jit",
    layer="any nnx.Module",
    quantity="fraction of an update of the running mean that is lost",
    what="When a module is an argument of a function under `jax.jit`, the "
    "updates of its Variables inside the function are lost without an error.",
    measured=1.0,
    origin="1",
    ours="A `Trainer` splits the module into leaves, and its jitted step "
    "returns all of them.",
)
def batch_norm_jax_jit() -> float:
    """Returns the fraction of an update of the running mean that is lost.

    `jax.jit` treats the module as a pytree, so the function updates a copy.
    `nnx.jit` copies the update back.
    """
    norm = nnx.BatchNorm(1, momentum=0.9, rngs=nnx.Rngs(0))
    x = jnp.ones((8, 1))
    jax.jit(lambda norm, x: norm(x))(norm, x)
    by_jax = norm.mean[0]
    nnx.jit(lambda norm, x: norm(x))(norm, x)
    by_nnx = norm.mean[0] - by_jax
    return float(1 - by_jax / by_nnx)


@family.known_difference(
    name="variable-dtype",
    layer="nnx.Variable",
    dtype="float64",
    quantity="error of a stored 1/3",
    what="The assignment `variable[...] = x` keeps the old dtype, so it "
    "rounds float64 values to float32. JAX emits a FutureWarning that this "
    "cast will become an error.",
    measured=float(np.float32(1 / 3)) - 1 / 3,
    origin="float32(1/3) - 1/3",
    ours="The Flax backend writes arrays with `set_value`, which uses the new "
    "dtype.",
)
def variable_dtype() -> float:
    """Returns the error of 1/3 after `variable[...] = x` in float64.

    The Variable is float32, as by default, and keeps this dtype. JAX warns
    that the cast will become an error.
    """
    with (
        jax.enable_x64(True),
        warnings.catch_warnings(action="ignore", category=FutureWarning),
    ):
        variable = nnx.Param(jnp.zeros((), jnp.float32))
        variable[...] = jnp.array(1 / 3, jnp.float64)
        return float(variable[...]) - 1 / 3


@family.known_difference(
    name="param-dtype",
    layer="any nnx.Module",
    dtype="float64",
    quantity="size of an element of a weight, in bytes",
    what="Parameters are float32 even when x64 is enabled, because the "
    "default of `param_dtype` is a constant. JAX and Equinox create float64 "
    "arrays.",
    expected=8.0,
    measured=4.0,
    origin="4",
    related=("flax #1777",),
    ours="`build` replaces every array with one of the model's dtype.",
)
def param_dtype() -> float:
    """Returns the size of an element of a weight, in bytes under x64."""
    with jax.enable_x64(True):
        linear = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        return float(linear.kernel[...].itemsize)
