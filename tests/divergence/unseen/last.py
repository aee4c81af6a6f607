"""Planted faults of which one cause of a miss was fixed.

The lines that `diff` should name were marked before it ran on any of them.
"""

from tests.divergence.unseen import pairs_codec, pairs_diffusion, pairs_flow

PAIRS = (*pairs_diffusion.PAIRS, *pairs_codec.PAIRS, *pairs_flow.PAIRS)
FAULTS = [(pair, fault) for pair in PAIRS for fault in pair.faults]

MISSED_AT_FIRST = (
    "un_offset",
    "un_tokens",
    "un_target",
    "un_clip",
    "un_weight",
    "un_dropped",
    "vq_flip",
    "vq_eps",
    "vq_distance",
    "vq_usage",
    "vq_entropy_sign",
    "vq_emphasis",
    "vq_emphasis_target",
    "vq_dropped",
    "fl_layout",
)
"""Those for which another place was named before that."""
