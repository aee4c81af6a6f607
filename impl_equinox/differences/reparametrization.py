"""Stock Equinox SpectralNorm and WeightNorm, which normalize a copy."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr

from common.differences import Family

family = Family("equinox", "reparametrization")


@family.known_difference(
    name="spectral-norm-zero",
    layer="SpectralNorm",
    quantity="fraction of outputs that are NaN",
    what="The layer divides a weight of zeros by its largest singular value, "
    "which is 0, so the output is NaN. NNX divides by 1 in this case.",
    measured=1.0,
    origin="1",
    ours="The definition also gives NaN in every backend, because a weight "
    "of zeros has no direction.",
)
def spectral_norm_zero() -> float:
    """Returns the fraction of outputs that are NaN for a weight of zeros."""
    linear = eqx.nn.Linear(3, 2, key=jr.key(0))
    zeros = jnp.zeros((2, 3))
    linear = eqx.tree_at(lambda linear: linear.weight, linear, zeros)
    layer, state = eqx.nn.make_with_state(eqx.nn.SpectralNorm)(
        linear, "weight", key=jr.key(1)
    )
    y, _ = layer(jnp.ones(3), state)
    return float(jnp.mean(jnp.isnan(y)))


@family.known_difference(
    name="weight-norm-zero",
    layer="WeightNorm",
    quantity="fraction of outputs that are NaN",
    what="An output whose weights are all zero is NaN, as in PyTorch. NNX "
    "adds 1e-12 to the squared norm, so it returns 0.",
    measured=1.0,
    origin="1",
    ours="The definition also gives NaN in every backend, because a weight "
    "of zeros has no direction.",
)
def weight_norm_zero() -> float:
    """Returns the fraction of outputs that are NaN for a weight of zeros."""
    linear = eqx.nn.Linear(3, 2, key=jr.key(0))
    zeros = jnp.zeros((2, 3))
    linear = eqx.tree_at(lambda linear: linear.weight, linear, zeros)
    layer = eqx.nn.WeightNorm(linear)
    return float(jnp.mean(jnp.isnan(layer(jnp.ones(3)))))
