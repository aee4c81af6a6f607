"""Embeddings."""

from hypothesis import strategies as st

from tests.layers.draws.options import options

COUNTS = st.sampled_from((1, 2, 5))
FEATURES = st.sampled_from((1, 3))

DRAWS = {
    "embedding": options(
        num_embeddings=COUNTS,
        features=FEATURES,
        size=st.sampled_from(((), (4,), (2, 3))),
    ),
    "embedding_attend": options(
        num_embeddings=COUNTS,
        features=FEATURES,
        size=st.sampled_from(((), (4,), (2, 3))),
    ),
}
