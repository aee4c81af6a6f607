"""What Hypothesis draws for each row of the layer table.

A strategy yields the fields of a row, within the layer's valid range. Its
space is small on purpose: whatever is new in a field is compiled anew.
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
