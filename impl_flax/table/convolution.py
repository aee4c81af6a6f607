"""Flax's convolutions."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from impl_flax import layers

MODES = {"REFLECT": "reflect", "REPLICATE": "edge", "CIRCULAR": "wrap"}


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
    rngs,
):
    """Makes a convolution, with any padding in any mode."""
    convolve = lax.conv_general_dilated
    if padding_mode in ("CIRCULAR", "REFLECT") and (padding, stride) == (
        "SAME",
        1,
    ):
        padding = padding_mode  # the one padding that Flax has in that mode
    elif padding_mode != "ZEROS":
        convolve = _padded(padding, MODES[padding_mode])
        padding = "VALID"
    return nnx.Conv(
        in_channels,
        out_channels,
        kernel_size,
        strides=stride,
        padding=padding,  # "SAME", unless told otherwise
        kernel_dilation=dilation,
        feature_group_count=groups,
        use_bias=use_bias,
        conv_general_dilated=convolve,
        rngs=rngs,
    )


def _padded(padding, mode):
    """Returns a convolution that pads its input with other than zeros."""

    def convolve(x, kernel, strides, valid, *, rhs_dilation, **options):
        sizes, window = x.shape[1:-1], kernel.shape[:-2]
        pads = padding
        if isinstance(padding, str):
            spans = [
                d * (k - 1) + 1
                for k, d in zip(window, rhs_dilation, strict=True)
            ]
            pads = lax.padtype_to_pads(sizes, spans, strides, padding)
        x = jnp.pad(x, [(0, 0), *pads, (0, 0)], mode)
        return lax.conv_general_dilated(
            x, kernel, strides, valid, rhs_dilation=rhs_dilation, **options
        )

    return convolve


def _mask(mask, kernel_size, channels) -> Any:
    """Returns the mask in the kernel's shape, the same for all channels."""
    if mask is None:
        return None
    return np.tile(np.array(mask).reshape(*kernel_size, 1, 1), channels)


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
    rngs,
):
    """Makes a convolution with a mask in the kernel's shape."""
    channels = (in_channels // groups, out_channels)
    return nnx.Conv(
        in_channels,
        out_channels,
        kernel_size,
        strides=stride,
        padding=padding,
        input_dilation=input_dilation,
        mask=_mask(mask, kernel_size, channels),
        kernel_dilation=dilation,
        feature_group_count=groups,
        use_bias=use_bias,
        rngs=rngs,
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
    rngs,
):
    """Makes a stock layer where it has the options, else an own one."""
    if (
        groups > 1
        or any(output_padding)
        or (padding_mode, padding) == ("ZEROS", "SAME_LOWER")
        or len(kernel_size) > 3
    ):
        return layers.ConvTranspose(
            in_channels,
            out_channels,
            kernel_size,
            strides=stride,
            padding=padding,
            padding_mode=padding_mode,
            output_padding=output_padding,
            kernel_dilation=dilation,
            groups=groups,
            use_bias=use_bias,
            rngs=rngs,
        )
    # With it the kernel is stored as PyTorch does, and a circular padding
    # has its odd entry on the other side.
    transpose_kernel = (padding_mode, padding) == ("CIRCULAR", "SAME_LOWER")
    if padding_mode == "CIRCULAR":
        padding = "CIRCULAR"
    elif padding != "SAME":
        # Flax means the padding of the dilated input, not of the convolution
        # to transpose. Its "VALID" is larger, if windows leave gaps.
        if padding == "VALID":
            padding = [(0, 0)] * len(kernel_size)
        padding = [
            (d * (k - 1) - lower, d * (k - 1) - upper)
            for k, d, (lower, upper) in zip(
                kernel_size, dilation, padding, strict=True
            )
        ]
    return nnx.ConvTranspose(
        in_channels,
        out_channels,
        kernel_size,
        strides=stride,
        padding=padding,
        kernel_dilation=dilation,
        transpose_kernel=transpose_kernel,
        use_bias=use_bias,
        rngs=rngs,
    )
