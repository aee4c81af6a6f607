"""A bank of planted faults that `diff` should find.

`tests.divergence.mutations.figures.figures()` computes the figures in the
docs.
"""

from tests.divergence.mutations.bank import FAULTS as FAULTS
from tests.divergence.mutations.bank import PAIRS as PAIRS
