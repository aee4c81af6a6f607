"""Convolutions and transposed convolutions."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from common.layers._initial import uniform
from common.layers._layer import Layer, extent
from common.layers._window import Padding, pads_of, per_axis
from common.protocol import Shaped, Variable

PaddingMode = Literal["ZEROS", "REFLECT", "REPLICATE", "CIRCULAR"]

# The names of these modes in `jnp.pad`.
PAD_MODES = {"REFLECT": "reflect", "REPLICATE": "edge", "CIRCULAR": "wrap"}


def conv_variables(
    in_channels: int,
    out_channels: int,
    kernel_size: tuple[int, ...],
    *,
    groups: int = 1,
    bias: bool = True,
) -> dict[str, Variable]:
    """Returns weight (out, in / groups, *kernel) and bias (out,).

    Both are drawn from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    References:
        The initialization of `torch.nn.Conv2d` and `eqx.nn.Conv2d`.
    """
    fan_in = in_channels // groups * math.prod(kernel_size)
    init = uniform(1 / math.sqrt(fan_in))
    weight = (out_channels, in_channels // groups, *kernel_size)
    variables = {"weight": Variable(weight, init)}
    if bias:
        variables["bias"] = Variable((out_channels,), init)
    return variables


def conv_transpose_variables(
    in_channels: int,
    out_channels: int,
    kernel_size: tuple[int, ...],
    *,
    groups: int = 1,
    bias: bool = True,
) -> dict[str, Variable]:
    """Returns weight (in, out / groups, *kernel) and bias (out,).

    Both are drawn from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    References:
        The initialization of `eqx.nn.ConvTranspose`, the layout of
        `torch.nn.ConvTranspose2d`.
    """
    variables = conv_variables(
        in_channels, out_channels, kernel_size, groups=groups, bias=bias
    )
    weight = (in_channels, out_channels // groups, *kernel_size)
    return variables | {"weight": Variable(weight, variables["weight"].init)}


def conv(
    x: Float[Array, "B *S I"],
    weight: Float[Array, "O I_g *K"],
    bias: Float[Array, " O"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    padding_mode: PaddingMode = "ZEROS",
    input_dilation: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Float[Array, "B *S2 O"]:
    """Computes a convolution (a cross-correlation) over the spatial axes.

    For one spatial axis and one group, with stride s and dilation d, this is
    `y[t, o] = bias[o] + sum(weight[o, i, k] * x[s * t + d * k, i])`, summed
    over i and k, where x is padded.

    Args:
        x: a batch, channels last.
        weight: the kernel, with `I / groups` input channels.
        bias: added to each channel.
        stride: the step between two windows.
        padding: one number for both sides of all axes, one number for both
            sides of each axis, a (before, after) pair for each axis, or a
            name. `"SAME"` and `"SAME_LOWER"` make the output as long as the
            input divided by the stride, rounded up, and put the extra entry of
            an odd padding after or before the input. `"VALID"` is no padding,
            and `"CAUSAL"` puts all padding before the input.
        padding_mode: how the padding is filled.
        input_dilation: the step between two entries of the input, with zeros
            in between. The dilation precedes the padding.
        dilation: the step between two entries of the kernel.
        groups: the number of groups of channels; each output channel depends
            on the input channels of its group only.

    References:
        Dumoulin and Visin, "A guide to convolution arithmetic for deep
        learning", 2016, arXiv:1603.07285.
    """
    n = weight.ndim - 2
    stride, dilation = per_axis(stride, n), per_axis(dilation, n)
    spans = _spans(weight.shape[2:], dilation)
    pads = pads_of(padding, x.shape[1:-1], spans, stride)
    if padding_mode != "ZEROS":
        x = jnp.pad(x, [(0, 0), *pads, (0, 0)], PAD_MODES[padding_mode])
        pads = [(0, 0)] * n
    axes = tuple(range(1, n + 1))
    y = lax.conv_general_dilated(
        x,
        weight,
        stride,
        pads,
        lhs_dilation=per_axis(input_dilation, n),
        rhs_dilation=dilation,
        dimension_numbers=lax.ConvDimensionNumbers(
            (0, n + 1, *axes), tuple(range(n + 2)), (0, n + 1, *axes)
        ),
        feature_group_count=groups,
    )
    return y if bias is None else y + bias


def conv_transpose(
    x: Float[Array, "B *S I"],
    weight: Float[Array, "I O_g *K"],
    bias: Float[Array, " O"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    padding_mode: Literal["ZEROS", "CIRCULAR"] = "ZEROS",
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Float[Array, "B *S2 O"]:
    """Computes the transpose of `conv`, as a linear map of its input.

    The input has the size of the convolution's output, and the output has the
    size of the convolution's input. If the stride is larger than 1, several
    sizes are possible. The output has the smallest one, or the largest one if
    the padding is `"SAME"`.

    Args:
        x: a batch, channels last.
        weight: the kernel of the convolution from `O` to `I` channels.
        bias: added to each channel.
        stride: the stride of the convolution; so are the options below.
        padding: see `conv`.
        padding_mode: `"ZEROS"` or `"CIRCULAR"`.
        output_padding: how much larger than the smallest size, or smaller than
            the largest size, the output is. Less than the stride.
        dilation: the step between two entries of the kernel.
        groups: the number of groups of channels.

    References:
        `torch.nn.ConvTranspose2d`; Dumoulin and Visin, "A guide to convolution
        arithmetic for deep learning", 2016, arXiv:1603.07285.
    """
    n = weight.ndim - 2
    stride, dilation = per_axis(stride, n), per_axis(dilation, n)
    output_padding = per_axis(output_padding, n)
    spans = _spans(weight.shape[2:], dilation)
    if padding in ("SAME", "SAME_LOWER"):
        sizes = [
            size * s - extra
            for size, s, extra in zip(
                x.shape[1:-1], stride, output_padding, strict=True
            )
        ]
    else:
        sizes = [
            (size - 1) * s + span - sum(pads) + extra
            for size, s, span, pads, extra in zip(
                x.shape[1:-1],
                stride,
                spans,
                pads_of(padding, x.shape[1:-1], spans, stride),
                output_padding,
                strict=True,
            )
        ]

    def forward(y: Array) -> Array:
        return conv(
            y,
            weight,
            stride=stride,
            padding=padding,
            padding_mode=padding_mode,
            dilation=dilation,
            groups=groups,
        )

    shape = (x.shape[0], *sizes, weight.shape[1] * groups)
    (y,) = jax.linear_transpose(forward, jax.ShapeDtypeStruct(shape, x.dtype))(
        x
    )
    return y if bias is None else y + bias


def _spans(
    kernel_size: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """Returns the extent of a dilated kernel along each axis."""
    return tuple(
        d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conv(Layer):
    """Computes a convolution over any number of spatial axes."""

    name = "conv"
    family = "convolution"

    in_channels: int = 4
    out_channels: int = 6
    kernel_size: tuple[int, ...] = (3, 2)
    stride: int | tuple[int, ...] = (2, 1)
    padding: Padding = ((1, 0), (1, 1))
    padding_mode: PaddingMode = "ZEROS"
    dilation: int | tuple[int, ...] = (1, 2)
    groups: int = 2
    use_bias: bool = True
    size: tuple[int, ...] = extent((5, 4))

    @property
    def inputs(self):
        return (Shaped((*self.size, self.in_channels)),)

    def variables(self):
        return conv_variables(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            groups=self.groups,
            bias=self.use_bias,
        )

    def forward(self, params, buffers, x, *, key, training):
        y = conv(
            x,
            **params,
            stride=self.stride,
            padding=self.padding,
            padding_mode=self.padding_mode,
            dilation=self.dilation,
            groups=self.groups,
        )
        return y, {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedConv(Layer):
    """Computes a convolution with a masked kernel and a dilated input.

    `mask` has a 0 or 1 for each entry of the kernel, in row-major order.
    """

    name = "masked_conv"
    family = "convolution"

    in_channels: int = 4
    out_channels: int = 6
    kernel_size: tuple[int, ...] = (2, 3)
    stride: tuple[int, ...] = (1, 2)
    padding: tuple[tuple[int, int], ...] = ((1, 0), (1, 1))
    input_dilation: tuple[int, ...] = (2, 1)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 2
    mask: tuple[int, ...] | None = (1, 1, 1, 1, 0, 0)
    use_bias: bool = True
    size: tuple[int, ...] = extent((3, 5))

    @property
    def inputs(self):
        return (Shaped((*self.size, self.in_channels)),)

    def variables(self):
        return conv_variables(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            groups=self.groups,
            bias=self.use_bias,
        )

    def forward(self, params, buffers, x, *, key, training):
        if self.mask is not None:
            mask = jnp.array(self.mask).reshape(self.kernel_size)
            weight = jnp.where(mask, params["weight"], 0)
            params = {**params, "weight": weight}
        y = conv(
            x,
            **params,
            stride=self.stride,
            padding=self.padding,
            input_dilation=self.input_dilation,
            dilation=self.dilation,
            groups=self.groups,
        )
        return y, {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvTranspose(Layer):
    """Computes a transposed convolution over any number of spatial axes."""

    name = "conv_transpose"
    family = "convolution"

    in_channels: int = 4
    out_channels: int = 6
    kernel_size: tuple[int, ...] = (3, 2)
    stride: tuple[int, ...] = (2, 1)
    padding: Padding = ((1, 0), (1, 1))
    padding_mode: Literal["ZEROS", "CIRCULAR"] = "ZEROS"
    output_padding: tuple[int, ...] = (1, 0)
    dilation: tuple[int, ...] = (1, 2)
    groups: int = 2
    use_bias: bool = True
    size: tuple[int, ...] = extent((3, 4))

    def __post_init__(self):
        if self.padding_mode == "CIRCULAR" and (
            self.padding not in ("SAME", "SAME_LOWER")
            or any(self.output_padding)
        ):
            raise ValueError(
                f"circular conv_transpose padding: got {self.padding!r} with "
                f"output_padding {self.output_padding}, expected 'SAME' or "
                "'SAME_LOWER' and no output padding. Use "
                "padding_mode='ZEROS' for others."
            )

    @property
    def inputs(self):
        return (Shaped((*self.size, self.in_channels)),)

    def variables(self):
        return conv_transpose_variables(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            groups=self.groups,
            bias=self.use_bias,
        )

    def forward(self, params, buffers, x, *, key, training):
        y = conv_transpose(
            x,
            **params,
            stride=self.stride,
            padding=self.padding,
            padding_mode=self.padding_mode,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        return y, {}
