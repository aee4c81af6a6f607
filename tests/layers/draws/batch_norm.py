"""Batch normalization.

There are at least two channels. The gradient of a weight is a sum of terms of
both signs, which may cancel. With a single channel there would be no other
gradient to which its error is relative.
"""

from hypothesis import strategies as st

from common.layers import BATCH_NORM_DIALECTS, MASKED_DIALECTS
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
        # A mask keeps three elements, so there must be more.
        size=st.sampled_from(((3,), (2, 3))),
    ),
}
