"""Planted faults in styles of code that the bank does not have.

A third of the faults was held out: it was chosen by position before any of
them was run, and nothing was tuned on it.
"""

from tests.divergence.unseen import (
    pairs_casts,
    pairs_experts,
    pairs_grouped,
    pairs_rotary,
)

PAIRS = (
    *pairs_rotary.PAIRS,
    *pairs_grouped.PAIRS,
    *pairs_experts.PAIRS,
    *pairs_casts.PAIRS,
)
NO_FAULT = "rot_offset"
"""It agrees: rotary embeddings depend on the differences of positions only."""
_PLANTED = [(pair, fault) for pair in PAIRS for fault in pair.faults]
HELD_OUT = [one for one in _PLANTED[2::3] if one[1] != NO_FAULT]
FAULTS = [one for one in _PLANTED if one[1] != NO_FAULT]
USED = [one for one in FAULTS if one not in HELD_OUT]
