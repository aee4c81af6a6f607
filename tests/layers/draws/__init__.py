"""Hypothesis strategies for the rows of the layer table.

A strategy yields valid fields of a row. It draws from few values, because
every new combination has to be compiled.
"""

from typing import Any

from hypothesis.strategies import SearchStrategy

from tests.layers.draws import (
    activation,
    attention,
    batch_norm,
    convolution,
    embedding,
    linear,
    normalization,
    pooling,
    recurrent,
    regularization,
    reparametrization,
)

DRAWS: dict[str, SearchStrategy[dict[str, Any]]] = {
    **linear.DRAWS,
    **convolution.DRAWS,
    **batch_norm.DRAWS,
    **normalization.DRAWS,
    **recurrent.DRAWS,
    **attention.DRAWS,
    **reparametrization.DRAWS,
    **regularization.DRAWS,
    **pooling.DRAWS,
    **embedding.DRAWS,
    **activation.DRAWS,
}
