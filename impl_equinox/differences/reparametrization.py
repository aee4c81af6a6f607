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


@family.known_difference(
    name="spectral-norm-bfloat16",
    layer="SpectralNorm",
    dtype="bfloat16",
    quantity="bits of an output's dtype, for an input and a weight of 16 bits",
    what="The estimates of the singular vectors are in the state, which a "
    "cast of the model does not reach. The weight that is divided by them is "
    "float32 again, and so are the matrix product and its output.",
    expected=16.0,
    measured=32.0,
    origin="the bits of float32",
    ours="`build(compute_dtype=...)` casts the normalized weight where the "
    "layer uses it.",
)
def spectral_norm_bfloat16() -> float:
    """Returns the bits of the output's dtype for a bfloat16 model and input.

    The layer was made in float32, and its floating arrays were cast.
    """
    linear = eqx.nn.Linear(3, 2, key=jr.key(0))
    layer, state = eqx.nn.make_with_state(eqx.nn.SpectralNorm)(
        linear, "weight", key=jr.key(1)
    )
    layer = eqx.tree_at(
        lambda layer: (layer.layer.weight, layer.layer.bias),
        layer,
        replace_fn=lambda x: x.astype(jnp.bfloat16),
    )
    y, _ = layer(jnp.ones(3, jnp.bfloat16), state)
    return float(y.dtype.itemsize * 8)
