"""The layer table: a row for each public layer of either library."""

import re
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
from common.layers._normalisation import (
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
from common.layers._recurrent import (
    RNN,
    Bidirectional,
    GRUCell,
    LSTMCell,
    OptimizedLSTMCell,
    SimpleCell,
)
from common.layers._regularisation import Dropout
from common.layers._reparametrisation import SpectralNorm, WeightNorm
from common.layers._rotary import RotaryPositionalEmbedding

# Between two words of a class name: `BatchNorm`, `LSTMCell`, `MLP`.
BETWEEN = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def name_of(row: type[Layer]) -> str:
    """Returns the name of a row: its class name in snake case."""
    # One word each, however they are written.
    name = row.__name__.replace("LoRA", "Lora").replace("PReLU", "Prelu")
    return BETWEEN.sub("_", name).lower()


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
    # normalisation
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
    # regularisation
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
LAYERS = {name_of(row): row for row in ROWS}
"""The rows by name, family by family."""


def find_layer(name: str) -> type[Layer]:
    """Returns a row of the table.

    Raises:
        ValueError: naming the rows there are.
    """
    if name not in LAYERS:
        raise choose("layer", name, LAYERS)
    return LAYERS[name]


def stem(layer: Layer) -> str:
    """Returns the name of the module of `impl_<library>.table` it is in."""
    return type(layer).__module__.rpartition("._")[2]


def require_variables(
    layer: Layer, params: Iterable[str], buffers: Iterable[str]
) -> None:
    """Checks the canonical names that a library's layer has.

    Raises:
        ValueError: naming those that the row does not know, and those that
            the layer lacks.
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
                f"{name_of(type(layer))} {what}: got {sorted(got)}, expected "
                f"{sorted(expected)}. Correct the rule in `state.py`, the "
                "layer, or the row's `variables`."
            )
