"""Planted faults that were written before origins were confirmed.

The lines that `diff` should name were marked before it ran on any of them,
and nothing was tuned on them.
"""

from tests.divergence.unseen import pairs_states, pairs_translation

PAIRS = (*pairs_translation.PAIRS, *pairs_states.PAIRS)
FAULTS = [(pair, fault) for pair in PAIRS for fault in pair.faults]
