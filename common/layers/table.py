"""The layer table: rows that cover every public layer of both libraries."""

from collections.abc import Iterable

from common.errors import choose
from common.layers._activation import Activation, PReLU
from common.layers._attention import (
    GroupedQueryAttention,
    MultiheadAttention,
    RotaryAttention,
    UnequalAttention,
)
from common.layers._batch_norm import BatchNorm
from common.layers._convolution import Conv, ConvTranspose, MaskedConv
from common.layers._embedding import Embedding, EmbeddingAttend
from common.layers._layer import Layer
from common.layers._linear import (
    MLP,
    Einsum,
    Function,
    Identity,
    Linear,
    LinearGeneral,
    Sequential,
)
from common.layers._lora import LoRA, LoRALinear
from common.layers._normalization import (
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    RMSNorm,
)
from common.layers._pooling import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AdaptivePool,
    AvgPool,
    MaxPool,
    MinPool,
    Pool,
)
from common.layers._recurrent import RNN, Bidirectional
from common.layers._recurrent_cell import (
    GRUCell,
    LSTMCell,
    OptimizedLSTMCell,
    SimpleCell,
)
from common.layers._regularization import Dropout
from common.layers._reparametrization import SpectralNorm, WeightNorm
from common.layers._rotary import RotaryPositionalEmbedding

ROWS: tuple[type[Layer], ...] = (
    # linear
    Linear,
    Identity,
    Function,
    Sequential,
    MLP,
    LinearGeneral,
    Einsum,
    LoRA,
    LoRALinear,
    # convolution
    Conv,
    MaskedConv,
    ConvTranspose,
    # normalization
    BatchNorm,
    LayerNorm,
    RMSNorm,
    GroupNorm,
    InstanceNorm,
    SpectralNorm,
    WeightNorm,
    # recurrent
    LSTMCell,
    OptimizedLSTMCell,
    GRUCell,
    SimpleCell,
    RNN,
    Bidirectional,
    # attention
    MultiheadAttention,
    UnequalAttention,
    GroupedQueryAttention,
    RotaryAttention,
    RotaryPositionalEmbedding,
    # regularization
    Dropout,
    # pooling
    AvgPool,
    MaxPool,
    MinPool,
    Pool,
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AdaptivePool,
    # embedding
    Embedding,
    EmbeddingAttend,
    # activation
    Activation,
    PReLU,
)


def by_name(rows: Iterable[type[Layer]]) -> dict[str, type[Layer]]:
    """Returns rows by their names.

    Raises:
        ValueError: if two rows have the same name.
    """
    layers: dict[str, type[Layer]] = {}
    for row in rows:
        if row.name in layers:
            raise ValueError(
                f"layer {row.name!r}: got {layers[row.name].__name__} and "
                f"{row.__name__}, expected one row of that name. Rename one "
                "of them."
            )
        layers[row.name] = row
    return layers


LAYERS = by_name(ROWS)
"""The rows by name, grouped by family."""


def find_layer(name: str) -> type[Layer]:
    """Returns a row of the table.

    Raises:
        ValueError: if the table has no row of that name.
    """
    if name not in LAYERS:
        raise choose("layer", name, LAYERS)
    return LAYERS[name]


def require_variables(
    layer: Layer, params: Iterable[str], buffers: Iterable[str]
) -> None:
    """Checks that a library's layer has the variables that its row declares.

    Args:
        layer: the row.
        params: the canonical names of the layer's parameters.
        buffers: the canonical names of the layer's buffers.

    Raises:
        ValueError: if the names differ from those of `layer.variables()`.
    """
    variables = layer.variables()
    for what, got, trainable in (
        ("parameters", set(params), True),
        ("buffers", set(buffers), False),
    ):
        expected = {
            name
            for name, variable in variables.items()
            if variable.trainable == trainable
        }
        if got != expected:
            raise ValueError(
                f"{layer.name} {what}: got {sorted(got)}, expected "
                f"{sorted(expected)}. Correct the rule of the library's "
                "layer, its constructor, or the row's `variables`."
            )
