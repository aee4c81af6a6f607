"""Stock Equinox SpectralNorm and WeightNorm, which divide a copy."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr


def spectral_norm_zero() -> float:
    """Returns the share of outputs that are NaN, for a weight of zeros."""
    linear = eqx.nn.Linear(3, 2, key=jr.key(0))
    linear = eqx.tree_at(lambda it: it.weight, linear, jnp.zeros((2, 3)))
    layer, state = eqx.nn.make_with_state(eqx.nn.SpectralNorm)(
        linear, "weight", key=jr.key(1)
    )
    y, _ = layer(jnp.ones(3), state)
    return float(jnp.mean(jnp.isnan(y)))


def weight_norm_zero() -> float:
    """Returns the share of outputs that are NaN, for a weight of zeros."""
    linear = eqx.nn.Linear(3, 2, key=jr.key(0))
    linear = eqx.tree_at(lambda it: it.weight, linear, jnp.zeros((2, 3)))
    layer = eqx.nn.WeightNorm(linear)
    return float(jnp.mean(jnp.isnan(layer(jnp.ones(3)))))
