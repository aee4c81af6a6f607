"""Equinox's convolutions."""

import equinox as eqx
import numpy as np

from impl_equinox import layers
from impl_equinox.table import calls

CALLS = {
    "conv": calls.channels_first,
    "masked_conv": calls.channels_first,
    "conv_transpose": calls.channels_first,
}


def conv(
    in_channels,
    out_channels,
    *,
    kernel_size,
    stride,
    padding,
    padding_mode,
    dilation,
    groups,
    use_bias,
    key,
):
    """Makes a Conv1d, Conv2d or Conv3d; a Conv for more axes."""
    if padding == "CAUSAL":  # all of it in front
        (dilation,) = np.broadcast_to(dilation, 1).tolist()
        padding = [(dilation * (kernel_size[0] - 1), 0)]
    options = dict(
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


def masked_conv(
    in_channels,
    out_channels,
    *,
    kernel_size,
    stride,
    padding,
    input_dilation,
    dilation,
    groups,
    mask,
    use_bias,
    key,
):
    """Makes a convolution that Equinox lacks, of its own Conv."""
    if mask is not None:
        mask = np.array(mask).reshape(kernel_size)
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
        mask=mask,
        input_dilation=input_dilation,
        key=key,
    )


def conv_transpose(
    in_channels,
    out_channels,
    *,
    kernel_size,
    stride,
    padding,
    padding_mode,
    output_padding,
    dilation,
    groups,
    use_bias,
    key,
):
    """Makes a ConvTranspose1d, 2d or 3d; a ConvTranspose for more axes."""
    # Keywords: `ConvTranspose2d` takes `output_padding` before `padding`,
    # and `ConvTranspose` after it.
    options = dict(
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
