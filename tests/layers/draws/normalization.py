"""Normalization of one example, over at least three elements.

Two elements are always at the same distance from their mean, so their
normalized values would be constant.
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
        # Groups, channels and sizes, with three, all or one channel per group.
        (
            (2, 6, ((), (2,), (2, 3))),
            (1, 3, ((), (2,), (2, 3))),
            (3, 3, ((3,), (2, 3))),
        )
    ).flatmap(
        lambda drawn: options(
            groups=st.just(drawn[0]),
            channels=st.just(drawn[1]),
            eps=EPS,
            channelwise_affine=st.booleans(),
            size=st.sampled_from(drawn[2]),
        )
    ),
    "instance_norm": options(
        channels=st.sampled_from((2, 4)),
        eps=EPS,
        channelwise_affine=st.booleans(),
        size=st.sampled_from(((3,), (2, 3), (2, 1, 3))),
    ),
}
