"""The layer table: a row for each public layer of either library."""

import re
from collections.abc import Iterable

from common.errors import choose
from common.layers._batch_norm import BatchNorm
from common.layers._layer import Layer
from common.layers._linear import Linear

# Between two words of a class name: `BatchNorm`, `LSTMCell`, `MLP`.
WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def name_of(row: type[Layer]) -> str:
    """Returns the name of a row: its class name in snake case."""
    return WORDS.sub("_", row.__name__).lower()


ROWS: tuple[type[Layer], ...] = (
    # linear
    Linear,
    # convolution
    # normalisation
    BatchNorm,
    # recurrent
    # attention
    # regularisation
    # pooling
    # embedding
    # activation
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
