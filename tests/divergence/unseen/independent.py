"""Planted faults that were written without reading the code of `diff`.

The lines that `diff` should name were decided before it ran on any of them,
and nothing was tuned on them.
"""

from tests.divergence.unseen import pairs_decoder, pairs_joint, pairs_windows

PAIRS = (*pairs_decoder.PAIRS, *pairs_windows.PAIRS, *pairs_joint.PAIRS)
FAULTS = [(pair, fault) for pair in PAIRS for fault in pair.faults]
