"""Planted faults on which nothing was tuned.

The lines that `diff` should name were marked before it ran on any of them.
Whoever changes `diff` because of one of them needs a newer bank.
"""

from tests.divergence.unseen import pairs_codec, pairs_diffusion, pairs_flow

PAIRS = (*pairs_diffusion.PAIRS, *pairs_codec.PAIRS, *pairs_flow.PAIRS)
FAULTS = [(pair, fault) for pair in PAIRS for fault in pair.faults]
