"""Batch normalisation."""

from hypothesis import strategies as st

from common.layers import BATCH_NORM_DIALECTS
from tests.draws.options import options

DRAWS = {
    "batch_norm": options(
        features=st.sampled_from((1, 3)),
        dialect=st.sampled_from(BATCH_NORM_DIALECTS),
        momentum=st.sampled_from((0.5, 0.9)),
        eps=st.sampled_from((1e-5, 1e-3)),
        size=st.sampled_from(((), (3,), (2, 3))),
    ),
}
