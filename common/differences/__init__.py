"""Where the libraries' stock layers part from the meaning: rows that run.

A row says what differs and by how much. A function of the same name in
`impl_<backend>/differences/<family>.py` shows it. The tests fail when a
release closes a difference, so that the row, and what we did about it, can go.
"""

from common.differences import (
    batch_norm,
    convolution,
    dropout,
    linear,
    normalisation,
    reparametrisation,
    sequence,
    state,
)
from common.differences.measurement import (
    find_demonstration,
    measure,
    require_complete,
)
from common.differences.row import (
    NOT_REPORTED,
    RAISES,
    REPOSITORIES,
    Cell,
    Difference,
    Measurement,
)
from common.layers import Layer

__all__ = [
    "DIFFERENCES",
    "FAMILIES",
    "NOT_REPORTED",
    "RAISES",
    "REPOSITORIES",
    "Cell",
    "Difference",
    "Measurement",
    "excused",
    "find_demonstration",
    "measure",
    "require_complete",
]

FAMILIES = {
    "state": "State and modules",
    "batch_norm": "Batch normalisation",
    "normalisation": "Layer, RMS and group normalisation",
    "reparametrisation": "Spectral and weight normalisation",
    "dropout": "Dropout",
    "linear": "Linear, embedding and activation",
    "convolution": "Convolution and pooling",
    "sequence": "Attention and recurrence",
}
"""The families of rows, each a module of this package, by title."""

DIFFERENCES: tuple[Difference, ...] = (
    *state.ROWS,
    *batch_norm.ROWS,
    *normalisation.ROWS,
    *reparametrisation.ROWS,
    *dropout.ROWS,
    *linear.ROWS,
    *convolution.ROWS,
    *sequence.ROWS,
)
"""The known differences, family by family."""


def excused(layer: Layer, backend: str, dtype: str) -> set[str]:
    """Returns the quantities of a layer that are known to differ."""
    options = layer.options()
    return {
        quantity
        for row in DIFFERENCES
        if row.backend == backend
        for cell in row.cells
        if cell.layer == layer.name
        and dtype in cell.dtypes
        and cell.options.items() <= options.items()
        for quantity in cell.quantities
    }
