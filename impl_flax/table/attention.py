"""Flax's attention layers."""

from typing import Any

from flax import nnx
from jaxtyping import Array

from impl_flax import layers
from impl_flax.table.column import constructs


def _attend(
    layer: Any,
    query: Array,
    key_: Array,
    value: Array,
    mask: Array | None = None,
    *,
    key: Any,
) -> Any:
    """Calls attention on a batch, with a random key for the dropout."""
    if mask is not None and mask.ndim == 3:
        mask = mask[:, None]  # (B, Q, K) -> (B, H, Q, K)
    # An `nnx.Rngs` would fold a counter into the key.
    return layer(query, key_, value, mask=mask, rngs=lambda: key)


@constructs(
    "multihead_attention",
    call=_attend,
    stock=("MultiHeadAttention",),
    kind="settings",
    page="attention",
    keywords={
        "query_size": "in_features",
        "output_size": "out_features",
        "dropout_p": "dropout_rate",
        "inference": "deterministic",
    },
)
def multihead_attention(
    num_heads: int,
    *,
    query_size: int,
    kv_size: int,
    output_size: int,
    head_size: int,
    use_bias: bool,
    dropout_p: float,
    rngs: nnx.Rngs,
) -> nnx.MultiHeadAttention:
    """Returns a MultiHeadAttention that samples one mask per example."""
    return nnx.MultiHeadAttention(
        num_heads,
        query_size,
        num_heads * head_size,  # the total over all heads
        output_size,
        in_kv_features=kv_size,
        use_bias=use_bias,
        dropout_rate=dropout_p,
        attention_fn=layers.dot_product_attention,
        decode=False,  # required: without it the call raises
        rngs=rngs,
    )


@constructs(
    "unequal_attention",
    call=_attend,
    kind="custom",
    using="MultiheadAttention",
)
def unequal_attention(
    num_heads: int,
    *,
    query_size: int,
    key_size: int,
    value_size: int,
    output_size: int,
    qk_size: int,
    vo_size: int,
    use_query_bias: bool,
    use_key_bias: bool,
    use_value_bias: bool,
    use_output_bias: bool,
    dropout_p: float,
    rngs: nnx.Rngs,
) -> layers.MultiheadAttention:
    """Returns custom attention with every size and bias given."""
    return layers.MultiheadAttention(
        num_heads,
        query_size=query_size,
        key_size=key_size,
        value_size=value_size,
        output_size=output_size,
        qk_size=qk_size,
        vo_size=vo_size,
        use_query_bias=use_query_bias,
        use_key_bias=use_key_bias,
        use_value_bias=use_value_bias,
        use_output_bias=use_output_bias,
        dropout_rate=dropout_p,
        rngs=rngs,
    )


@constructs(
    "grouped_query_attention",
    call=_attend,
    stock=("MultiHeadAttention",),
    kind="settings",
    page="attention",
)
def grouped_query_attention(
    num_heads: int,
    *,
    num_kv_heads: int,
    query_size: int,
    kv_size: int,
    output_size: int,
    head_size: int,
    use_bias: bool,
    normalize_qk: bool,
    dropout_p: float,
    rngs: nnx.Rngs,
) -> nnx.MultiHeadAttention:
    """Returns attention with fewer key and value heads than query heads."""
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
            # The default, E[x^2] - E[x]^2, cancels when the mean is large.
            norm.use_fast_variance = False
    return attention


@constructs(
    "rotary_attention",
    call=_attend,
    kind="composition",
    using="nnx.MultiHeadAttention with rotary query and key heads",
)
def rotary_attention(
    num_heads: int,
    *,
    num_kv_heads: int,
    size: int,
    head_size: int,
    theta: float,
    dropout_p: float,
    rngs: nnx.Rngs,
) -> nnx.MultiHeadAttention:
    """Returns grouped-query attention with rotary query and key heads."""
    rotate = layers.RotaryPositionalEmbedding(head_size, theta)

    def attention_fn(
        query: Array, key: Array, value: Array, **options: Any
    ) -> Array:
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
