"""A bank of planted faults, and how `diff` does on it.

`tests.mutations.figures.figures()` computes what the docs say of it.
"""

from tests.mutations.bank import FAULTS as FAULTS
from tests.mutations.bank import PAIRS as PAIRS
