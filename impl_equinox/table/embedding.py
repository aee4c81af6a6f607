"""Equinox's embeddings."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from impl_equinox.table.column import constructs


def _per_index(layer: Any, state: Any, indices: Any, *, key: Any) -> Any:
    """Maps the layer, which takes one index, over every axis."""
    del key
    for _ in range(indices.ndim):
        layer = jax.vmap(layer)
    return layer(indices), state


def _attend(layer: Any, state: Any, query: Any, *, key: Any) -> Any:
    """Computes logits from the weight of the embedding."""
    del key
    return query @ layer.weight.T, state


@constructs(
    "embedding",
    call=_per_index,
    stock=("Embedding",),
    page="embedding",
    keywords={"features": "embedding_size"},
)
def embedding(
    num_embeddings: int, features: int, *, key: PRNGKeyArray
) -> eqx.nn.Embedding:
    """Returns an Embedding."""
    return eqx.nn.Embedding(num_embeddings, features, key=key)


@constructs(
    "embedding_attend",
    call=_attend,
    kind="composition",
    using="x @ embedding.weight.T",
)
def embedding_attend(
    num_embeddings: int, features: int, *, key: PRNGKeyArray
) -> eqx.nn.Embedding:
    """Returns an Embedding."""
    return eqx.nn.Embedding(num_embeddings, features, key=key)
