"""Equinox's attention layers."""

from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray

from impl_equinox import layers
from impl_equinox.table import calls
from impl_equinox.table.column import constructs


@constructs(
    "multihead_attention",
    call=calls.with_keys,
    stock=("MultiheadAttention",),
    page="attention",
    keywords={
        "use_bias": (
            "use_query_bias",
            "use_key_bias",
            "use_value_bias",
            "use_output_bias",
        ),
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
    key: PRNGKeyArray,
) -> eqx.nn.MultiheadAttention:
    """Returns a MultiheadAttention whose keys and values have one size."""
    return eqx.nn.MultiheadAttention(
        num_heads,
        query_size,
        kv_size,
        kv_size,
        output_size,
        head_size,  # per head; `query_size // num_heads` by default
        head_size,
        use_query_bias=use_bias,
        use_key_bias=use_bias,
        use_value_bias=use_bias,
        use_output_bias=use_bias,
        dropout_p=dropout_p,
        key=key,
    )


@constructs(
    "unequal_attention",
    call=calls.with_keys,
    stock=("MultiheadAttention",),
    page="attention",
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
    key: PRNGKeyArray,
) -> eqx.nn.MultiheadAttention:
    """Returns a MultiheadAttention with every size and bias given."""
    return eqx.nn.MultiheadAttention(
        num_heads,
        query_size,
        key_size,
        value_size,
        output_size,
        qk_size,
        vo_size,
        use_query_bias=use_query_bias,
        use_key_bias=use_key_bias,
        use_value_bias=use_value_bias,
        use_output_bias=use_output_bias,
        dropout_p=dropout_p,
        key=key,
    )


@constructs(
    "grouped_query_attention",
    call=calls.with_keys,
    kind="custom",
    using="GroupedQueryAttention",
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
    key: PRNGKeyArray,
) -> layers.GroupedQueryAttention:
    """Returns attention with fewer key and value heads than query heads."""
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


@constructs(
    "rotary_attention",
    call=calls.with_keys,
    kind="composition",
    using="attention with rotary query and key heads",
)
def rotary_attention(
    num_heads: int,
    *,
    num_kv_heads: int,
    size: int,
    head_size: int,
    theta: float,
    dropout_p: float,
    key: PRNGKeyArray,
) -> Callable[..., Array]:
    """Returns grouped-query attention with rotary query and key heads."""
    rotate = layers.RotaryPositionalEmbedding(head_size, theta)
    if num_kv_heads == num_heads:
        attention = eqx.nn.MultiheadAttention(
            num_heads,
            size,
            qk_size=head_size,
            vo_size=head_size,
            dropout_p=dropout_p,
            key=key,
        )
    else:
        attention = layers.GroupedQueryAttention(
            num_heads,
            num_kv_heads,
            size,
            head_size=head_size,
            dropout_p=dropout_p,
            key=key,
        )

    def process_heads(
        query: Array, key_: Array, value: Array
    ) -> tuple[Array, Array, Array]:
        return rotate(query), rotate(key_), value

    return eqx.Partial(attention, process_heads=process_heads)
