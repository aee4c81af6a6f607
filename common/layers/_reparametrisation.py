"""Weights that are computed from others: spectral and weight norm."""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from common.layers._initial import normal
from common.layers._linear import linear
from common.protocol import Arrays, Variable


def spectral_norm_variables(
    weight: Variable, weight_name: str = "weight"
) -> dict[str, Variable]:
    """The singular-vector estimates u (out,) and v (in * kernel,)."""
    out, *rest = weight.shape

    return {
        f"{weight_name}_u": Variable((out,), normal, trainable=False),
        f"{weight_name}_v": Variable(
            (math.prod(rest),), normal, trainable=False
        ),
    }


def power_iteration(
    weight: Float[Array, "O I"],
    u: Float[Array, " O"],
    v: Float[Array, " I"],
    *,
    eps: float = 1e-12,
) -> tuple[Float[Array, " O"], Float[Array, " I"]]:
    """Improves (u, v) towards the leading singular vectors of `weight`."""

    def normalise(t):
        return t / jnp.maximum(eps, jnp.sqrt(jnp.sum(t * t)))

    u = normalise(weight @ v)
    return u, normalise(weight.T @ u)


def spectral_norm(
    weight: Float[Array, "O *I"],
    u: Float[Array, " O"],
    v: Float[Array, " I2"],
    *,
    training: bool,
    eps: float = 1e-12,
) -> tuple[Float[Array, "O *I"], Float[Array, " O"], Float[Array, " I2"]]:
    """Divides a weight by an estimate of its largest singular value.

    Training first improves (u, v) by one power iteration; no gradient flows
    through the iteration. The stored weight itself never changes.

    Returns:
        The normalised weight and the updated (u, v).

    Reference: Miyato et al., "Spectral Normalization for Generative
        Adversarial Networks", 2018, arXiv:1802.05957.
    """
    matrix = weight.reshape(weight.shape[0], -1)
    if training:
        u, v = power_iteration(lax.stop_gradient(matrix), u, v, eps=eps)
    return weight / (u @ matrix @ v), u, v


def spectral_linear(
    x: Float[Array, "*B I"],
    weight: Float[Array, "O I"],
    bias: Float[Array, " O"],
    weight_u: Float[Array, " O"],
    weight_v: Float[Array, " I"],
    *,
    training: bool,
) -> tuple[Float[Array, "*B O"], Arrays]:
    """Applies a Linear whose weight is spectrally normalised."""
    weight, u, v = spectral_norm(weight, weight_u, weight_v, training=training)
    return linear(x, weight, bias), {"weight_u": u, "weight_v": v}


def settle(weight: Array, u: Array, v: Array, *, iterations: int = 15):
    """Runs the power iterations that Equinox runs at construction."""
    matrix = weight.reshape(weight.shape[0], -1)
    for _ in range(iterations):
        u, v = power_iteration(matrix, u, v)
    return u, v
