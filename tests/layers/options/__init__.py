"""Options of stock layers that only one library has, as comparisons.

The layer matrix compares both libraries with one definition, so it cannot set
an option that one of them lacks. Each function here sets such options, and
returns what the stock layer computes and what the definition says.
"""

from tests.layers.options import (
    equinox_layers,
    flax_functions,
    flax_layers,
    flax_normalization,
)
from tests.layers.options.drawing import Comparison

COMPARISONS: dict[str, tuple[Comparison, ...]] = {
    "equinox": equinox_layers.COMPARISONS,
    "flax": (
        *flax_functions.COMPARISONS,
        *flax_layers.COMPARISONS,
        *flax_normalization.COMPARISONS,
    ),
}
