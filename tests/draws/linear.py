"""Linear layers."""

from hypothesis import strategies as st

from tests.draws.options import options

SIZES = st.sampled_from((1, 2, 5))

DRAWS = {
    "linear": options(
        in_features=SIZES, out_features=SIZES, use_bias=st.booleans()
    ),
}
