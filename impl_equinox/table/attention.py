"""Equinox's attention."""

import equinox as eqx

from impl_equinox import layers
from impl_equinox.table import calls

CALLS = {
    "multihead_attention": calls.with_keys,
    "unequal_attention": calls.with_keys,
    "grouped_query_attention": calls.with_keys,
    "rotary_attention": calls.with_keys,
}


def multihead_attention(
    num_heads,
    *,
    query_size,
    kv_size,
    output_size,
    head_size,
    use_bias,
    dropout_p,
    key,
):
    """Makes a MultiheadAttention with key and value of one size."""
    return eqx.nn.MultiheadAttention(
        num_heads,
        query_size,
        kv_size,
        kv_size,
        output_size,
        head_size,  # of one head: `query_size // num_heads` by default
        head_size,
        use_query_bias=use_bias,
        use_key_bias=use_bias,
        use_value_bias=use_bias,
        use_output_bias=use_bias,
        dropout_p=dropout_p,
        key=key,
    )


def unequal_attention(num_heads, *, query_size, key, **options):
    """Makes a MultiheadAttention: all sizes and biases are its own."""
    return eqx.nn.MultiheadAttention(num_heads, query_size, key=key, **options)


def grouped_query_attention(
    num_heads,
    *,
    num_kv_heads,
    query_size,
    kv_size,
    output_size,
    head_size,
    use_bias,
    normalize_qk,
    dropout_p,
    key,
):
    """Makes an attention with fewer heads of key and value than of query."""
    return layers.GroupedQueryAttention(
        num_heads,
        num_kv_heads,
        query_size,
        kv_size,
        output_size,
        head_size,
        use_bias=use_bias,
        normalize_qk=normalize_qk,
        dropout_p=dropout_p,
        key=key,
    )


def rotary_attention(
    num_heads, *, num_kv_heads, size, head_size, theta, dropout_p, key
):
    """Makes an attention that rotates its heads of query and key."""
    rotate = layers.RotaryPositionalEmbedding(head_size, theta)
    attention = layers.GroupedQueryAttention(
        num_heads,
        num_kv_heads,
        size,
        head_size=head_size,
        dropout_p=dropout_p,
        key=key,
    )

    def process_heads(query, key_, value):
        return rotate(query), rotate(key_), value

    return eqx.Partial(attention, process_heads=process_heads)
