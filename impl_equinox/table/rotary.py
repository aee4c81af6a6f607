"""Equinox's rotary positional embedding."""

from jaxtyping import PRNGKeyArray

from impl_equinox import layers
from impl_equinox.table.column import constructs


@constructs(
    "rotary_positional_embedding",
    stock=("RotaryPositionalEmbedding",),
    kind="custom",
    using="RotaryPositionalEmbedding",
    page="embedding",
)
def rotary_positional_embedding(
    embedding_size: int, *, theta: float, key: PRNGKeyArray
) -> layers.RotaryPositionalEmbedding:
    """Returns a custom layer without the stock layer's shared cache."""
    del key
    return layers.RotaryPositionalEmbedding(embedding_size, theta)
