"""Flax's embeddings."""

from flax import nnx


def _attend(layer, query, *, key):
    """Looks up the other way, by the tied weight."""
    del key
    return layer.attend(query)


CALLS = {"embedding_attend": _attend}


def embedding(num_embeddings, features, *, rngs):
    """Makes a look-up table."""
    layer = nnx.Embed(num_embeddings, features, rngs=rngs)
    # Otherwise it returns float32, whatever it holds later.
    layer.dtype = None
    return layer


def embedding_attend(num_embeddings, features, *, rngs):
    """Makes a look-up table."""
    return embedding(num_embeddings, features, rngs=rngs)
