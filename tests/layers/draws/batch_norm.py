"""Batch normalization.

Two channels at least: the weight's gradient is a sum of terms of both signs,
and a single one may cancel, so that it has no magnitude to measure it in.
"""

from hypothesis import strategies as st

from common.layers import BATCH_NORM_DIALECTS
from common.layers._batch_norm import MASKED_DIALECTS
from tests.layers.draws.options import options

FIELDS = {
    "features": st.sampled_from((2, 4)),
    "momentum": st.sampled_from((0.5, 0.9)),
    "eps": st.sampled_from((1e-5, 1e-3)),
    "channelwise_affine": st.booleans(),
}

DRAWS = {
    "batch_norm": options(
        **FIELDS,
        dialect=st.sampled_from(BATCH_NORM_DIALECTS),
        size=st.sampled_from(((), (3,), (2, 3))),
    )
    | options(
        **FIELDS,
        dialect=st.sampled_from(MASKED_DIALECTS),
        masked=st.just(True),
        # Of three elements a mask would leave all.
        size=st.sampled_from(((3,), (2, 3))),
    ),
}
