"""The arguments of Flax's layers that the layer table does not set."""

DTYPES = (
    "the dtype of parameters and results; the layers are compared in three "
    "dtypes, which are written into their arrays"
)
INITIAL = "initial values; the page of each layer lists their distributions"
FUNCTION = "a function that computes the same in place of that of `jax.lax`"
METADATA = "metadata of a Variable, such as its sharding"
SHARDING = "how an array is distributed over devices"
GROUPS = "`jax.vmap` does not support groups, so this needs several devices"

NOT_COMPARED = {
    "dtype": DTYPES,
    "param_dtype": DTYPES,
    "lora_dtype": DTYPES,
    "lora_param_dtype": DTYPES,
    "promote_dtype": DTYPES,
    "lora_promote_dtype": DTYPES,
    "qkv_promote_dtype": DTYPES,
    "out_promote_dtype": DTYPES,
    "ln_promote_dtype": DTYPES,
    "preferred_element_type": DTYPES,
    "precision": "the precision of matrix products on an accelerator; the "
    "comparison asks JAX for the highest",
    "kernel_init": INITIAL,
    "recurrent_kernel_init": INITIAL,
    "bias_init": INITIAL,
    "out_kernel_init": INITIAL,
    "out_bias_init": INITIAL,
    "embedding_init": INITIAL,
    "scale_init": INITIAL,
    "a_initializer": INITIAL,
    "b_initializer": INITIAL,
    "dot_general": FUNCTION,
    "dot_general_cls": FUNCTION,
    "qkv_dot_general": FUNCTION,
    "qkv_dot_general_cls": FUNCTION,
    "out_dot_general": FUNCTION,
    "out_dot_general_cls": FUNCTION,
    "einsum_op": FUNCTION,
    "kernel_metadata": METADATA,
    "recurrent_kernel_metadata": METADATA,
    "bias_metadata": METADATA,
    "out_kernel_metadata": METADATA,
    "out_bias_metadata": METADATA,
    "query_ln_scale_metadata": METADATA,
    "key_ln_scale_metadata": METADATA,
    "scale_metadata": METADATA,
    "embedding_metadata": METADATA,
    "negative_slope_metadata": METADATA,
    "a_metadata": METADATA,
    "b_metadata": METADATA,
    "lora_param_type": "the type of a Variable",
    "out_sharding": SHARDING,
    "qkv_sharding": SHARDING,
    "rngs": "random numbers, which are an input of the comparison",
    "keep_rngs": "whether a layer stores its random numbers",
}
"""Arguments of any layer that do not change what it computes, with reasons."""

NOTES = {
    "MultiHeadAttention.broadcast_dropout": "one mask of the attention "
    "weights is shared by all heads of all examples",
    "MultiHeadAttention.decode": "`None` raises in the call",
    "BatchNorm.use_fast_variance": "E[x²] - E[x]², which cancels if the mean "
    "is large",
    "LayerNorm.use_fast_variance": "E[x²] - E[x]², which cancels if the mean "
    "is large",
    "GroupNorm.use_fast_variance": "E[x²] - E[x]², which cancels if the mean "
    "is large",
    "InstanceNorm.use_fast_variance": "E[x²] - E[x]², which cancels if the "
    "mean is large",
    "SimpleCell.dtype": "computes in float32, whatever the input",
}
"""What a reader must know of a default, by `Layer.argument`."""

NOT_SET: dict[str, str] = {
    f"{layer}.axis_index_groups": GROUPS
    for layer in (
        "BatchNorm",
        "LayerNorm",
        "RMSNorm",
        "GroupNorm",
        "InstanceNorm",
    )
}
"""Other arguments that no comparison sets, by `Layer.argument` with reasons.

An argument of the call is `Layer.__call__.argument`.
"""
