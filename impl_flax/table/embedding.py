"""Flax's embeddings."""

from typing import Any

from flax import nnx

from impl_flax.table.column import constructs


def _attend(layer: Any, query: Any, *, key: Any) -> Any:
    """Computes logits from the weight of the embedding."""
    del key
    return layer.attend(query)


@constructs("embedding", stock=("Embed",), kind="settings", page="linear")
def embedding(
    num_embeddings: int, features: int, *, rngs: nnx.Rngs
) -> nnx.Embed:
    """Returns an Embed."""
    layer = nnx.Embed(num_embeddings, features, rngs=rngs)
    # Embed would otherwise cast what it returns to float32.
    layer.dtype = None
    return layer


@constructs(
    "embedding_attend",
    call=_attend,
    stock=("Embed",),
    kind="settings",
    page="linear",
)
def embedding_attend(
    num_embeddings: int, features: int, *, rngs: nnx.Rngs
) -> nnx.Embed:
    """Returns an Embed."""
    return embedding(num_embeddings, features, rngs=rngs)
