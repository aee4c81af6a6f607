"""Flax's convolutions."""

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn.linear import canonicalize_padding
from jax import lax
from jaxtyping import Array

from common.layers import Padding, PaddingMode, explicit_padding
from impl_flax import layers
from impl_flax.table.column import constructs

MODES = {"REFLECT": "reflect", "REPLICATE": "edge", "CIRCULAR": "wrap"}


def _padded(padding: Any, mode: str) -> Callable[..., Array]:
    """Returns a convolution that pads its input in a mode of `jnp.pad`."""

    def convolve(
        x: Array,
        kernel: Array,
        strides: Any,
        valid: Any,
        *,
        rhs_dilation: Any,
        **options: Any,
    ) -> Array:
        sizes, window = x.shape[1:-1], kernel.shape[:-2]
        pads = canonicalize_padding(padding, len(sizes))
        if isinstance(pads, str):
            spans = [
                d * (k - 1) + 1
                for k, d in zip(window, rhs_dilation, strict=True)
            ]
            pads = lax.padtype_to_pads(sizes, spans, strides, pads)
        x = jnp.pad(x, [(0, 0), *pads, (0, 0)], mode)
        return lax.conv_general_dilated(
            x, kernel, strides, valid, rhs_dilation=rhs_dilation, **options
        )

    return convolve


def _mask(
    mask: tuple[int, ...] | None,
    kernel_size: tuple[int, ...],
    channels: tuple[int, int],
) -> Any:
    """Repeats a mask for all channels, in the kernel's shape."""
    if mask is None:
        return None
    return np.tile(np.array(mask).reshape(*kernel_size, 1, 1), channels)


@constructs(
    "conv",
    stock=("Conv",),
    kind="settings",
    page="linear",
    keywords={
        "in_channels": "in_features",
        "out_channels": "out_features",
        "stride": "strides",
        "dilation": "kernel_dilation",
        "groups": "feature_group_count",
    },
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
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Returns a Conv, with any padding in any mode."""
    convolve = lax.conv_general_dilated
    axes = len(kernel_size)
    if padding == "CAUSAL" and (padding_mode, axes) != ("ZEROS", 1):
        # Flax knows this name for zeros and one axis.
        steps = np.broadcast_to(dilation, axes).tolist()
        padding = tuple(
            (d * (k - 1), 0) for k, d in zip(kernel_size, steps, strict=True)
        )
    if padding_mode in ("CIRCULAR", "REFLECT") and (padding, stride) == (
        "SAME",
        1,
    ):
        padding = (
            padding_mode  # the only padding of this mode that Flax offers
        )
    elif padding_mode != "ZEROS":
        convolve = _padded(padding, MODES[padding_mode])
        padding = "VALID"
    return nnx.Conv(
        in_channels,
        out_channels,
        kernel_size,
        strides=stride,
        padding=padding,  # "SAME" by default
        kernel_dilation=dilation,
        feature_group_count=groups,
        use_bias=use_bias,
        conv_general_dilated=convolve,
        rngs=rngs,
    )


@constructs("masked_conv", stock=("Conv",), kind="settings", page="linear")
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
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Returns a Conv with a masked kernel or a dilated input."""
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


@constructs(
    "conv_transpose",
    stock=("ConvTranspose",),
    kind="custom",
    using="ConvTranspose",
    page="linear",
    keywords={
        "in_channels": "in_features",
        "out_channels": "out_features",
        "stride": "strides",
        "dilation": "kernel_dilation",
    },
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
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Returns a stock layer if it has the options, otherwise a custom one."""
    spans = [
        d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True)
    ]
    padding = explicit_padding(padding, spans)
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
    # `transpose_kernel` stores the kernel in PyTorch's layout, and moves the
    # extra entry of an odd circular padding to the other side.
    transpose_kernel = (padding_mode, padding) == ("CIRCULAR", "SAME_LOWER")
    flax_padding: Any = padding
    if padding_mode == "CIRCULAR":
        flax_padding = "CIRCULAR"
    elif padding != "SAME":
        # Flax pads the dilated input, whereas PyTorch's padding is that of
        # the convolution that is transposed. Flax's "VALID" makes a larger
        # output when the stride exceeds the kernel.
        if padding == "VALID":
            flax_padding = [(0, 0)] * len(kernel_size)
        flax_padding = [
            (d * (k - 1) - lower, d * (k - 1) - upper)
            for k, d, (lower, upper) in zip(
                kernel_size, dilation, flax_padding, strict=True
            )
        ]
    return nnx.ConvTranspose(
        in_channels,
        out_channels,
        kernel_size,
        strides=stride,
        padding=flax_padding,
        kernel_dilation=dilation,
        transpose_kernel=transpose_kernel,
        use_bias=use_bias,
        rngs=rngs,
    )
