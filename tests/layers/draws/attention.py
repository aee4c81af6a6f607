"""Attention."""

from hypothesis import strategies as st

from common.layers import ATTENTION_MASKS
from tests.layers.draws.options import options

# At least two keys, because the weight of a single key is always 1.
LENGTHS = st.sampled_from((2, 3))
HEADS = st.sampled_from((1, 2))
SIZES = st.sampled_from((3, 4))
MASKS = st.sampled_from(ATTENTION_MASKS)
# Dropout is rare, because it takes twice as long to compile.
P = st.sampled_from((0.0, 0.0, 0.0, 0.3))

DRAWS = {
    "multihead_attention": options(
        num_heads=HEADS,
        kv_size=SIZES,
        output_size=SIZES,
        head_size=SIZES,
        use_bias=st.booleans(),
        dropout_p=P,
        q_len=LENGTHS,
        kv_len=LENGTHS,
        mask=MASKS,
    ),
    "unequal_attention": options(
        num_heads=HEADS,
        key_size=SIZES,
        value_size=SIZES,
        output_size=SIZES,
        qk_size=SIZES,
        vo_size=SIZES,
        use_query_bias=st.booleans(),
        use_key_bias=st.booleans(),
        use_value_bias=st.booleans(),
        use_output_bias=st.booleans(),
        dropout_p=P,
        mask=MASKS,
    ),
    "grouped_query_attention": options(
        num_heads=st.sampled_from((2, 4)),
        num_kv_heads=HEADS,
        kv_size=SIZES,
        head_size=SIZES,
        # Biases make heads ill-conditioned, especially once normalized.
        use_bias=st.sampled_from((False, False, True)),
        normalize_qk=st.booleans(),
        dropout_p=P,
        mask=MASKS,
    ),
    "rotary_attention": options(
        num_heads=st.sampled_from((2, 4)),
        num_kv_heads=HEADS,
        head_size=st.sampled_from((2, 4)),
        theta=st.sampled_from((1e2, 1e4)),
        dropout_p=P,
        q_len=LENGTHS,
        kv_len=LENGTHS,
        mask=MASKS,
    ),
    "rotary_positional_embedding": options(
        embedding_size=st.sampled_from((2, 4, 6)),
        theta=st.sampled_from((1e2, 1e4, 5e5)),
        size=st.sampled_from(((1,), (5,), (3, 2))),
    ),
}
