"""Equinox's convolutions."""

from typing import Any, Literal

import equinox as eqx
import numpy as np
from jaxtyping import PRNGKeyArray

from common.layers import Padding, PaddingMode
from impl_equinox import layers
from impl_equinox.table import calls
from impl_equinox.table.column import constructs


@constructs(
    "conv",
    call=calls.channels_first,
    stock=("Conv", "Conv1d", "Conv2d", "Conv3d"),
    page="conv",
)
def conv(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: tuple[int, ...],
    stride: int | tuple[int, ...],
    padding: Padding,
    padding_mode: PaddingMode,
    dilation: int | tuple[int, ...],
    groups: int,
    use_bias: bool,
    key: PRNGKeyArray,
) -> eqx.nn.Conv:
    """Returns a Conv1d, Conv2d or Conv3d, or a Conv for more axes."""
    if padding == "CAUSAL":  # Equinox does not know this name
        steps = np.broadcast_to(dilation, len(kernel_size)).tolist()
        padding = [
            (d * (k - 1), 0) for k, d in zip(kernel_size, steps, strict=True)
        ]
    options: dict[str, Any] = dict(
        stride=stride,
        padding=padding,
        padding_mode=padding_mode,
        dilation=dilation,
        groups=groups,
        use_bias=use_bias,
        key=key,
    )
    axes = len(kernel_size)
    if axes > 3:
        return eqx.nn.Conv(
            axes, in_channels, out_channels, kernel_size, **options
        )
    make = {1: eqx.nn.Conv1d, 2: eqx.nn.Conv2d, 3: eqx.nn.Conv3d}[axes]
    return make(in_channels, out_channels, kernel_size, **options)


@constructs(
    "masked_conv", call=calls.channels_first, kind="custom", using="MaskedConv"
)
def masked_conv(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    input_dilation: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    mask: tuple[int, ...] | None,
    use_bias: bool,
    key: PRNGKeyArray,
) -> layers.MaskedConv:
    """Returns a convolution with a masked kernel or a dilated input."""
    kernel_mask = None
    if mask is not None:
        kernel_mask = np.array(mask).reshape(kernel_size)
    return layers.MaskedConv(
        len(kernel_size),
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        use_bias=use_bias,
        mask=kernel_mask,
        input_dilation=input_dilation,
        key=key,
    )


@constructs(
    "conv_transpose",
    call=calls.channels_first,
    stock=(
        "ConvTranspose",
        "ConvTranspose1d",
        "ConvTranspose2d",
        "ConvTranspose3d",
    ),
    page="conv",
)
def conv_transpose(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    padding_mode: Literal["ZEROS", "CIRCULAR"],
    output_padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    use_bias: bool,
    key: PRNGKeyArray,
) -> eqx.nn.ConvTranspose:
    """Returns a ConvTranspose1d, 2d or 3d, or a ConvTranspose for more."""
    if padding == "CAUSAL":  # Equinox does not know this name
        padding = [
            (d * (k - 1), 0)
            for k, d in zip(kernel_size, dilation, strict=True)
        ]
    # `ConvTranspose2d` and `ConvTranspose` take `padding` and
    # `output_padding` in different orders, so both are keywords here.
    options: dict[str, Any] = dict(
        stride=stride,
        padding=padding,
        padding_mode=padding_mode,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        use_bias=use_bias,
        key=key,
    )
    axes = len(kernel_size)
    if axes > 3:
        return eqx.nn.ConvTranspose(
            axes, in_channels, out_channels, kernel_size, **options
        )
    make = {
        1: eqx.nn.ConvTranspose1d,
        2: eqx.nn.ConvTranspose2d,
        3: eqx.nn.ConvTranspose3d,
    }[axes]
    return make(in_channels, out_channels, kernel_size, **options)
