"""A bank of planted faults, and how `diff` does on it.

`tests.divergence.mutations.figures.figures()` computes what the docs say of it.
"""

from tests.divergence.mutations.bank import FAULTS as FAULTS
from tests.divergence.mutations.bank import PAIRS as PAIRS
