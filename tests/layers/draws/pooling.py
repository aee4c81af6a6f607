"""Pooling: a few shapes, each with all options that are valid for it."""

from hypothesis import strategies as st

from tests.layers.draws.options import options

# A padding is smaller than its window, so no window has only padding.
SHAPES = (
    dict(window=(2,), stride=(2,), padding=((0, 0),), size=(5,)),
    dict(window=(3,), stride=(1,), padding=((2, 1),), size=(4,)),
    dict(window=(2,), stride=(3,), padding=(0,), size=(6,)),
    dict(window=(3, 2), stride=(2, 3), padding=1, size=(5, 4)),
    dict(window=(3, 2), stride=(2, 1), padding="CAUSAL", size=(3, 4)),
    dict(window=(3, 2), stride=(2, 1), padding=((1, 0), (0, 1)), size=(5, 4)),
    dict(window=(2, 3), stride=(1, 3), padding="SAME", size=(4, 5)),
    dict(window=(2, 4), stride=(1, 3), padding="VALID", size=(3, 6)),
    dict(
        window=(2, 1, 3),
        stride=(2, 1, 2),
        padding=((1, 0), (0, 0), (0, 1)),
        size=(3, 2, 4),
    ),
)


def pooling(**fields):
    """Draws a shape and further fields."""
    fields = options(use_ceil=st.booleans(), **fields)
    return st.tuples(st.sampled_from(SHAPES), fields).map(
        lambda drawn: drawn[0] | drawn[1]
    )


def adaptive(**fields):
    """Draws sizes that divide evenly or do not, and further fields."""
    shapes = st.sampled_from(
        (
            dict(target_shape=(3,), size=(6,)),
            dict(target_shape=(3,), size=(5,)),
            dict(target_shape=(1,), size=(4,)),
            dict(target_shape=(2, 3), size=(5, 6)),
            dict(target_shape=(3, 4), size=(4, 6)),
            dict(target_shape=(4, 4), size=(4, 5)),
            dict(target_shape=(2, 2, 1), size=(3, 4, 2)),
            dict(target_shape=(1, 3, 2), size=(2, 5, 3)),
        )
    )
    channels = st.sampled_from((1, 3))
    return st.tuples(shapes, options(channels=channels, **fields)).map(
        lambda drawn: drawn[0] | drawn[1]
    )


DRAWS = {
    "avg_pool": pooling(count_include_pad=st.booleans()),
    "max_pool": pooling(channels=st.sampled_from((1, 3))),
    "min_pool": pooling(channels=st.sampled_from((1, 3))),
    "pool": pooling(operation=st.sampled_from(("add", "max", "min"))),
    "adaptive_avg_pool": adaptive(),
    "adaptive_max_pool": adaptive(),
    "adaptive_pool": adaptive(
        operation=st.sampled_from(("sum", "min", "median"))
    ),
}
