"""Settings that, with the examples, set every option that a row can set.

They are drawn too, but rarely; these are compared with the definition in every
run of the exhaustive tests. `tests/layers/test_options.py` fails if an option
of a stock layer is not set by any of them.
"""

from typing import Any

Settings = dict[str, Any]

COVERING: dict[str, tuple[Settings, ...]] = {
    "linear": (
        dict(in_features="scalar", out_features="scalar", use_bias=False),
    ),
    "mlp": (
        dict(depth=0, use_bias=False, use_final_bias=False),
        dict(
            depth=3, activation="silu", final_activation="sigmoid", scan=True
        ),
    ),
    "conv": (
        dict(
            kernel_size=(2, 1, 2),
            stride=(1, 1, 2),
            padding=((1, 0), (0, 1), (1, 2)),
            padding_mode="REFLECT",
            dilation=2,
            use_bias=False,
            size=(4, 2, 4),
        ),
        dict(
            kernel_size=(2,),
            stride=(2,),
            padding="SAME_LOWER",
            padding_mode="REFLECT",
            dilation=(3,),
            use_bias=False,
            size=(5,),
        ),
        dict(
            kernel_size=(2, 3),
            stride=1,
            padding="SAME_LOWER",
            padding_mode="CIRCULAR",
            dilation=1,
            use_bias=False,
            size=(4, 5),
        ),
        dict(
            kernel_size=(2, 1, 2, 1),
            stride=(1, 1, 2, 1),
            padding=((1, 0), (0, 1), (1, 2), (1, 1)),
            padding_mode="CIRCULAR",
            dilation=(1, 1, 2, 1),
            use_bias=False,
            size=(3, 2, 4, 2),
        ),
    ),
    "conv_transpose": (
        dict(
            kernel_size=(3,),
            stride=(2,),
            padding="SAME",
            padding_mode="CIRCULAR",
            output_padding=(0,),
            dilation=(1,),
            groups=1,
            use_bias=False,
            size=(4,),
        ),
        dict(
            kernel_size=(2,),
            stride=(2,),
            output_padding=(1,),
            padding=((1, 0),),
            dilation=(2,),
            size=(4,),
        ),
        dict(
            kernel_size=(3, 2),
            stride=(1, 2),
            padding="SAME_LOWER",
            padding_mode="CIRCULAR",
            output_padding=(0, 0),
            dilation=(2, 1),
            groups=1,
            use_bias=False,
            size=(5, 3),
        ),
        dict(
            kernel_size=(2, 1, 2),
            stride=(2, 1, 1),
            padding="SAME",
            output_padding=(1, 0, 0),
            dilation=(1, 1, 2),
            use_bias=False,
            size=(2, 2, 3),
        ),
        dict(
            kernel_size=(2, 1, 2),
            stride=(2, 1, 1),
            padding="SAME_LOWER",
            padding_mode="CIRCULAR",
            output_padding=(0, 0, 0),
            dilation=(1, 1, 2),
            groups=1,
            size=(2, 2, 3),
        ),
        dict(
            kernel_size=(2, 1, 2, 1),
            stride=(2, 1, 1, 1),
            padding=((1, 0), (0, 0), (0, 1), (0, 0)),
            output_padding=(1, 0, 0, 0),
            dilation=(1, 1, 2, 1),
            use_bias=False,
            size=(2, 1, 3, 2),
        ),
        dict(
            kernel_size=(2, 1, 2, 1),
            stride=(2, 1, 1, 1),
            padding="SAME_LOWER",
            padding_mode="CIRCULAR",
            output_padding=(0, 0, 0, 0),
            dilation=(1, 1, 1, 1),
            size=(2, 1, 3, 2),
        ),
    ),
    "batch_norm": (
        dict(eps=1e-3, channelwise_affine=False, masked=True, size=(3,)),
        dict(dialect="ema", eps=1e-3, channelwise_affine=False),
        dict(dialect="batch", momentum=0.5),
    ),
    "layer_norm": (
        dict(eps=1e-3, use_weight=False, use_bias=False),
        dict(shape=(2, 3), masked=True),
    ),
    "rms_norm": (dict(eps=1e-3, use_weight=False),),
    "group_norm": (dict(eps=1e-3, channelwise_affine=False, size=()),),
    "instance_norm": (dict(eps=1e-3, channelwise_affine=False, size=(3,)),),
    "spectral_norm": (
        dict(num_power_iterations=2, eps=1.0, kernel_size=(1, 2)),
    ),
    "weight_norm": (dict(kernel_size=(2,), axis=None),),
    "lstm_cell": (dict(use_bias=False),),
    "gru_cell": (dict(use_bias=False),),
    "simple_cell": (dict(residual=True),),
    "rnn": (
        dict(
            cell="simple",
            reverse=True,
            keep_order=True,
            seq_lengths=True,
            initial_carry=True,
        ),
    ),
    "bidirectional": (dict(cell="gru", seq_lengths=True, initial_carry=True),),
    "multihead_attention": (
        dict(use_bias=True, dropout_p=0.3, mask="causal", kv_len=3),
    ),
    "rotary_attention": (
        dict(num_kv_heads=2, dropout_p=0.3, theta=1e2, mask="heads"),
    ),
    "dropout": (dict(broadcast_dims=(1,)), dict(mask="example")),
    "avg_pool": (
        dict(
            window=(3,),
            stride=(2,),
            padding=((2, 1),),
            use_ceil=True,
            count_include_pad=False,
            size=(5,),
        ),
        dict(use_ceil=True, count_include_pad=False),
        dict(
            window=(2, 1, 3),
            stride=(2, 1, 2),
            padding=((1, 0), (0, 0), (0, 1)),
            use_ceil=True,
            count_include_pad=False,
            size=(3, 2, 4),
        ),
    ),
    "max_pool": (
        dict(
            window=(3,),
            stride=(2,),
            padding=((2, 1),),
            use_ceil=True,
            size=(5,),
        ),
        dict(use_ceil=True),
        dict(
            window=(2, 1, 3),
            stride=(2, 1, 2),
            padding=((1, 0), (0, 0), (0, 1)),
            use_ceil=True,
            size=(3, 2, 4),
        ),
    ),
    "min_pool": (dict(use_ceil=True),),
    "pool": (dict(operation="max", use_ceil=True),),
    "activation": (
        dict(function="gelu", approximate=False),
        dict(function="logsumexp"),
        dict(function="standardize"),
        dict(function="one_hot"),
    ),
    "prelu": (dict(features=4),),
}
