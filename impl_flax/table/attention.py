"""Flax's attention."""

from flax import nnx

from impl_flax import layers


def attend(layer, query, key_, value, mask=None, *, key):
    """Calls an attention on a batch."""
    if mask is not None and mask.ndim == 3:
        mask = mask[:, None]  # (B, Q, K) -> (B, H, Q, K)
    # An `nnx.Rngs` would fold a counter into the key.
    return layer(query, key_, value, mask=mask, rngs=lambda: key)


CALLS = {
    "multihead_attention": attend,
    "unequal_attention": attend,
    "grouped_query_attention": attend,
    "rotary_attention": attend,
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
    rngs,
):
    """Makes a MultiHeadAttention with Equinox's softmax and dropout."""
    return nnx.MultiHeadAttention(
        num_heads,
        query_size,
        num_heads * head_size,  # of all heads together
        output_size,
        in_kv_features=kv_size,
        use_bias=use_bias,
        dropout_rate=dropout_p,
        attention_fn=layers.dot_product_attention,
        decode=False,  # without it, the call is an error
        rngs=rngs,
    )


def unequal_attention(num_heads, *, dropout_p, rngs, **options):
    """Makes an attention of which all sizes and biases are its own."""
    return layers.MultiheadAttention(
        num_heads, dropout_rate=dropout_p, rngs=rngs, **options
    )


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
    rngs,
):
    """Makes an attention with fewer heads of key and value than of query."""
    attention = nnx.MultiHeadAttention(
        num_heads,
        query_size,
        num_heads * head_size,
        output_size,
        num_kv_heads,
        kv_size,
        use_bias=use_bias,
        normalize_qk=normalize_qk,
        dropout_rate=dropout_p,
        attention_fn=layers.dot_product_attention,
        decode=False,
        rngs=rngs,
    )
    for norm in (attention.query_ln, attention.key_ln):
        if norm is not None:
            # E[x^2] - E[x]^2 loses all digits where the mean is large.
            norm.use_fast_variance = False
    return attention


def rotary_attention(
    num_heads, *, num_kv_heads, size, head_size, theta, dropout_p, rngs
):
    """Makes an attention that rotates its heads of query and key."""
    rotate = layers.RotaryPositionalEmbedding(head_size, theta)

    def attention_fn(query, key, value, **options):
        return layers.dot_product_attention(
            rotate(query), rotate(key), value, **options
        )

    return nnx.MultiHeadAttention(
        num_heads,
        size,
        num_heads * head_size,
        num_kv_heads=num_kv_heads,
        use_bias=False,
        dropout_rate=dropout_p,
        attention_fn=attention_fn,
        decode=False,
        rngs=rngs,
    )
