"""Rotary positional embedding, which Flax does not have."""

from flax import nnx

from impl_flax import layers
from impl_flax.table.column import constructs


@constructs(
    "rotary_positional_embedding",
    kind="custom",
    using="RotaryPositionalEmbedding",
)
def rotary_positional_embedding(
    embedding_size: int, *, theta: float, rngs: nnx.Rngs
) -> layers.RotaryPositionalEmbedding:
    """Returns a custom layer; it has no parameters."""
    del rngs
    return layers.RotaryPositionalEmbedding(embedding_size, theta)
