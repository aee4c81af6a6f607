"""Transposed convolution with the semantics of Equinox and of PyTorch.

The layer acts on a batch, channels last, and is an `nnx.Conv` of the dilated
input.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class ConvTranspose(nnx.Conv):
    r"""The transpose of the convolution with the same options.

    .. math::
        \mathrm{out} = (\mathrm{in} - 1) s - p_l - p_r + d (k - 1) + a + 1

    is the size of an output axis, for stride :math:`s`, padding
    :math:`(p_l, p_r)`, dilation :math:`d`, kernel size :math:`k` and output
    padding :math:`a`. A convolution with a stride maps several input sizes to
    the same output size, and `output_padding` selects one of them. Unlike
    `nnx.ConvTranspose`, this layer has groups, and its `padding` is that of
    the convolution, not that of the dilated input.

    Example:

        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from impl_flax.layers import ConvTranspose
        >>> conv_transpose = ConvTranspose(
        ...     3, 4, kernel_size=(3,), strides=2, padding=1,
        ...     output_padding=1, rngs=nnx.Rngs(0),
        ... )
        >>> conv_transpose(jnp.ones((2, 5, 3))).shape
        (2, 10, 4)

    References:
        Counterparts: `equinox.nn.ConvTranspose`,
        `torch.nn.ConvTranspose2d`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Sequence[int],
        strides: int | Sequence[int] = 1,
        *,
        padding: str | int | Sequence[int] | Sequence[tuple[int, int]] = 0,
        padding_mode: Literal["ZEROS", "CIRCULAR"] = "ZEROS",
        output_padding: int | Sequence[int] = 0,
        kernel_dilation: int | Sequence[int] = 1,
        groups: int = 1,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Creates the layer.

        Args:
            in_features: the number of input channels.
            out_features: the number of output channels.
            kernel_size: the size of the kernel along each axis.
            strides: the strides of the transposed convolution.
            padding: the padding of the transposed convolution: a number, a
                number or a pair for each axis, `"SAME"`, `"SAME_LOWER"`,
                `"VALID"` or `"CAUSAL"`.
            padding_mode: the padding mode of the transposed convolution;
                `"CIRCULAR"` requires `"SAME"` or `"SAME_LOWER"` padding.
            output_padding: the number of elements by which the output exceeds
                the smallest possible size. With `"SAME"` or `"SAME_LOWER"`,
                the number by which it falls short of the largest.
            kernel_dilation: the dilation of the kernel.
            groups: the number of groups that the channels are split into.
            use_bias: whether to add a bias.
            dtype: the dtype of the computation, by default inferred from the
                input and the parameters.
            param_dtype: the dtype of the parameters.
            rngs: the streams of the initial parameters.

        Raises:
            ValueError: if `output_padding` is not less than `strides`, or if
                circular padding is combined with an output padding or with
                explicit padding.
        """
        axes = len(kernel_size)
        strides = _per_axis(strides, axes)
        extra = _per_axis(output_padding, axes)
        kernel_dilation = _per_axis(kernel_dilation, axes)
        for a, s in zip(extra, strides, strict=True):
            if not 0 <= a < s:
                raise ValueError(
                    f"ConvTranspose output_padding: got {extra}, expected "
                    f"less than the strides {strides}. Choose an output "
                    "padding below the stride of each axis."
                )
        circular = padding_mode == "CIRCULAR"
        same = padding in ("SAME", "SAME_LOWER")
        if circular and (any(extra) or not same):
            raise ValueError(
                f"ConvTranspose circular padding: got {padding!r} with "
                f"output_padding {extra}, expected 'SAME' or 'SAME_LOWER' "
                "and no output padding. Use padding_mode='ZEROS' for others."
            )
        pads = []
        for axis, (k, s, a, d) in enumerate(
            zip(kernel_size, strides, extra, kernel_dilation, strict=True)
        ):
            reach = d * (k - 1)
            if same:
                total = reach + 1 - s + a
                a = max(-total, 0)
                lower, upper = max(total, 0) // 2, (max(total, 0) + 1) // 2
                if padding == "SAME_LOWER":
                    lower, upper = upper, lower
            else:
                lower, upper = _pair(padding, axis, reach)
            pads.append((reach - lower, reach - upper + a))
        # A circular padding of n elements of the dilated input is n // s
        # inputs from the other end, and n % s of the zeros between inputs.
        self.wraps = [(0, 0)] * axes
        if circular:
            self.wraps = [
                (lo // s, hi // s)
                for (lo, hi), s in zip(pads, strides, strict=True)
            ]
            pads = [
                (lo % s, hi % s)
                for (lo, hi), s in zip(pads, strides, strict=True)
            ]
        super().__init__(
            in_features,
            out_features,
            kernel_size,
            padding=pads,
            input_dilation=strides,
            kernel_dilation=kernel_dilation,
            feature_group_count=groups,
            use_bias=use_bias,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(
        self, inputs: Float[Array, "B *S I"], out_sharding: Any = None
    ) -> Array:
        """Applies the transposed convolution to a batch.

        Args:
            inputs: the batch.
            out_sharding: the sharding of the output, as in `nnx.Conv`.
        """
        inputs = jnp.pad(inputs, [(0, 0), *self.wraps, (0, 0)], mode="wrap")
        return super().__call__(inputs, out_sharding)


def _per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def _pair(padding: Any, axis: int, reach: int) -> tuple[int, int]:
    if padding == "VALID":
        return 0, 0
    if padding == "CAUSAL":
        return reach, 0
    if isinstance(padding, str):
        raise ValueError(
            f"ConvTranspose padding: got {padding!r}, expected 'SAME', "
            "'SAME_LOWER', 'VALID', 'CAUSAL', a number or numbers. Correct "
            "the name, or pass numbers."
        )
    pad = padding if isinstance(padding, int) else padding[axis]
    return (pad, pad) if isinstance(pad, int) else (pad[0], pad[1])
