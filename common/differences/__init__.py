"""Known differences between stock layers and their definitions.

A known difference is a decorated function in `impl_<backend>/differences/`.
The decorator says what differs and by how much, and the function measures it.
The tests fail when a release of a library removes a difference, so that the
function and our workaround can be deleted.
"""

from common.differences.catalogue import excused, known_differences
from common.differences.measurement import Measurement, measure
from common.differences.row import (
    EXACT,
    FAMILIES,
    NOT_REPORTED,
    RAISES,
    REPOSITORIES,
    ROUNDING,
    SEEDED,
    Excuse,
    Family,
    KnownDifference,
)

__all__ = [
    "EXACT",
    "FAMILIES",
    "NOT_REPORTED",
    "RAISES",
    "REPOSITORIES",
    "ROUNDING",
    "SEEDED",
    "Excuse",
    "Family",
    "KnownDifference",
    "Measurement",
    "excused",
    "known_differences",
    "measure",
]
