"""Activation functions."""

from hypothesis import strategies as st

from common.layers import ACTIVATIONS
from tests.layers.draws.options import options

DRAWS = {
    "activation": options(
        function=st.sampled_from(sorted(ACTIVATIONS)),
        approximate=st.booleans(),
        size=st.sampled_from(((6,), (2, 6))),
    ),
    "prelu": options(
        features=st.sampled_from((None, 1, 4)),
        num_spatial_dims=st.sampled_from((0, 1, 2, 3)),
    ),
}
