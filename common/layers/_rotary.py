"""Rotary positions."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from common.layers._layer import Layer, Side, extent
from common.protocol import Shaped


def rotary_embedding(
    x: Float[Array, "B S *H D"], theta: float = 10_000.0
) -> Float[Array, "B S *H D"]:
    """Rotates pairs of features by angles that grow with the position.

    Feature i and feature i + D/2 are a pair, and at position s they turn by
    `s * theta**(-2i / D)`. Other sources pair neighbours: the same up to a
    permutation of the features.

    Reference: Su et al., "RoFormer", 2021, arXiv:2104.09864.
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
    """Rotates pairs of features by angles that grow with the position.

    The inputs are sequences, or sequences of heads. Equinox's own layer keeps
    its angles in a cache that forgets `theta`, so two layers of one size and
    different `theta` return each other's numbers.
    """

    family = "attention"
    equinox = Side(
        ("RotaryPositionalEmbedding",),
        "own",
        "RotaryPositionalEmbedding",
        page="embedding",
    )
    flax = Side((), "own", "RotaryPositionalEmbedding")

    embedding_size: int = 4
    theta: float = 10_000.0
    size: tuple[int, ...] = extent((3, 2))

    @property
    def inputs(self):
        return (Shaped((*self.size, self.embedding_size)),)

    def forward(self, params, buffers, x, *, key, training):
        return rotary_embedding(x, self.theta), {}
