"""The arguments of Equinox's layers that the layer table does not set."""

NOT_COMPARED = {
    "dtype": "the dtype of the parameters; the layers are compared in three "
    "dtypes, which are written into their arrays",
    "key": "random numbers, which are an input of the comparison; most layers "
    "ignore the key of their call",
}
"""Arguments of any layer that do not change what it computes, with reasons."""

NOTES = {
    "BatchNorm.mode": "`'legacy'` is `'ema'`, and warns unless it is given",
    "Dropout.deterministic": "deprecated; `inference` means the same",
    "LayerNorm.elementwise_affine": "deprecated; stands for both `use_weight` "
    "and `use_bias`",
}
"""What a reader must know of a default, by `Layer.argument`."""

NOT_SET: dict[str, str] = {}
"""Other arguments that no comparison sets, by `Layer.argument` with reasons.

An argument of the call is `Layer.__call__.argument`.
"""
