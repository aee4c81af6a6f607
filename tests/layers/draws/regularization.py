"""Dropout."""

from hypothesis import strategies as st

from tests.layers.draws.options import options

P = st.sampled_from((0.0, 0.1, 1 / 3, 0.5, 0.9, 1.0))

DRAWS = {
    "dropout": st.one_of(
        options(
            p=P,
            mask=st.just("batch"),
            size=st.sampled_from(((6,), (3, 4))),
        ),
        options(
            p=P,
            mask=st.just("batch"),
            broadcast_dims=st.sampled_from(((1,), (2,), (1, 2))),
            size=st.just((3, 4)),
        ),
        options(
            p=P,
            mask=st.just("example"),
            size=st.sampled_from(((6,), (3, 4))),
        ),
    ),
}
