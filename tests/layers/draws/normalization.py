"""Normalization of one example.

Never over fewer than three elements: two are always as far from their mean.
"""

from hypothesis import strategies as st

from tests.layers.draws.options import options

SHAPES = st.sampled_from(((5,), (2, 3), (2, 1, 4)))
EPS = st.sampled_from((1e-5, 1e-3))

DRAWS = {
    "layer_norm": options(
        shape=SHAPES,
        eps=EPS,
        use_weight=st.booleans(),
        use_bias=st.booleans(),
        masked=st.booleans(),
    ),
    "rms_norm": options(
        shape=SHAPES,
        eps=EPS,
        use_weight=st.booleans(),
        use_bias=st.booleans(),
    ),
    "group_norm": st.sampled_from(
        # Groups, channels and sizes: groups of three channels, of all, of one.
        (
            (2, 6, ((), (2,), (2, 3))),
            (1, 3, ((), (2,), (2, 3))),
            (3, 3, ((3,), (2, 3))),
        )
    ).flatmap(
        lambda it: options(
            groups=st.just(it[0]),
            channels=st.just(it[1]),
            eps=EPS,
            channelwise_affine=st.booleans(),
            size=st.sampled_from(it[2]),
        )
    ),
    "instance_norm": options(
        channels=st.sampled_from((2, 4)),
        eps=EPS,
        channelwise_affine=st.booleans(),
        size=st.sampled_from(((3,), (2, 3), (2, 1, 3))),
    ),
}
