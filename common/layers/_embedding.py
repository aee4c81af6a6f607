"""Embeddings."""

import dataclasses

import numpy as np
from jaxtyping import Array, Float, Int

from common.layers._initial import normal
from common.layers._layer import Layer, extent
from common.protocol import Shaped, Variable


def embedding_variables(
    num_embeddings: int, features: int
) -> dict[str, Variable]:
    """Returns weight (num_embeddings, features), drawn from N(0, 1).

    References:
        The initialization of `torch.nn.Embedding` and `eqx.nn.Embedding`.
    """
    return {"weight": Variable((num_embeddings, features), normal)}


def embedding(
    indices: Int[Array, "*B"], weight: Float[Array, "V F"]
) -> Float[Array, "*B F"]:
    """Looks up the row of each index. A negative index counts from the end.

    Only indices in [-V, V) are defined. For others the libraries differ:
    Equinox clamps them and Flax returns NaN.
    """
    return weight[indices]


def attend(
    query: Float[Array, "*B F"], weight: Float[Array, "V F"]
) -> Float[Array, "*B V"]:
    """Computes the inner product of a query with every row.

    References:
        Press and Wolf, "Using the Output Embedding to Improve Language
        Models", 2016, arXiv:1608.05859.
    """
    return query @ weight.T


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embedding(Layer):
    """Looks up the row of a weight for each index."""

    name = "embedding"
    family = "embedding"

    num_embeddings: int = 5
    features: int = 3
    size: tuple[int, ...] = extent((4,))

    @property
    def inputs(self):
        return (Shaped(self.size, "int"),)

    def variables(self):
        return embedding_variables(self.num_embeddings, self.features)

    def draw(self, rng: np.random.Generator, batch_size: int):
        count, shape = self.num_embeddings, (batch_size, *self.size)
        return (rng.integers(-count, count, shape, np.int32),)

    def forward(self, params, buffers, indices, *, key, training):
        return embedding(indices, **params), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingAttend(Layer):
    """Computes logits as inner products with the rows of an embedding."""

    name = "embedding_attend"
    family = "embedding"

    num_embeddings: int = 5
    features: int = 3
    size: tuple[int, ...] = extent((2,))

    @property
    def inputs(self):
        return (Shaped((*self.size, self.features)),)

    def variables(self):
        return embedding_variables(self.num_embeddings, self.features)

    def forward(self, params, buffers, query, *, key, training):
        return attend(query, **params), {}
