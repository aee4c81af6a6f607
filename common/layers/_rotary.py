"""Rotary positional embedding."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from common.layers._layer import Layer, extent
from common.protocol import Shaped


def rotary_embedding(
    x: Float[Array, "B S *H D"], theta: float = 10_000.0
) -> Float[Array, "B S *H D"]:
    """Rotates pairs of features by angles proportional to the position.

    Features i and i + D/2 form a pair. At position s they are rotated by the
    angle `s * theta**(-2i / D)`. Some implementations pair adjacent features
    instead, which is the same up to a permutation.

    References:
        Su et al., "RoFormer", 2021, arXiv:2104.09864.
    """
    length, half = x.shape[1], x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=x.dtype) / half)
    angles = jnp.arange(length, dtype=x.dtype)[:, None] * frequencies
    angles = angles.reshape(length, *[1] * (x.ndim - 3), half)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotaryPositionalEmbedding(Layer):
    """Rotates pairs of features by angles proportional to the position.

    The inputs are sequences of features, or sequences of heads.
    """

    name = "rotary_positional_embedding"
    family = "attention"

    embedding_size: int = 4
    theta: float = 10_000.0
    size: tuple[int, ...] = extent((3, 2))

    @property
    def inputs(self):
        return (Shaped((*self.size, self.embedding_size)),)

    def forward(self, params, buffers, x, *, key, training):
        return rotary_embedding(x, self.theta), {}
