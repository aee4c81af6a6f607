"""A bank of planted faults, and how `diff` does on it.

`tests.divergence.mutations.figures.figures()` computes the figures in the
docs.
"""

from tests.divergence.mutations.bank import FAULTS as FAULTS
from tests.divergence.mutations.bank import PAIRS as PAIRS
