"""Equinox's embeddings."""

import equinox as eqx
import jax


def _of_scalars(layer, state, indices, *, key):
    """Maps the layer, which takes one index, over every axis."""
    del key
    for _ in range(indices.ndim):
        layer = jax.vmap(layer)
    return layer(indices), state


def _attend(layer, state, query, *, key):
    """Looks up the other way, by the tied weight."""
    del key
    return query @ layer.weight.T, state


CALLS = {"embedding": _of_scalars, "embedding_attend": _attend}


def embedding(num_embeddings, features, *, key):
    """Makes a look-up table."""
    return eqx.nn.Embedding(num_embeddings, features, key=key)


def embedding_attend(num_embeddings, features, *, key):
    """Makes a look-up table."""
    return eqx.nn.Embedding(num_embeddings, features, key=key)
