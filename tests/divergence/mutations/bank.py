"""All pairs and all faults."""

from tests.divergence.mutations import (
    pairs_attention,
    pairs_images,
    pairs_losses,
    pairs_norms,
    pairs_optimizers,
    pairs_recurrent,
    pairs_training,
    pairs_transformers,
)

PAIRS = (
    *pairs_images.PAIRS,
    *pairs_norms.PAIRS,
    *pairs_recurrent.PAIRS,
    *pairs_attention.PAIRS,
    *pairs_transformers.PAIRS,
    *pairs_losses.PAIRS,
    *pairs_optimizers.PAIRS,
    *pairs_training.PAIRS,
)
FAULTS = [(pair, fault) for pair in PAIRS for fault in pair.faults]
