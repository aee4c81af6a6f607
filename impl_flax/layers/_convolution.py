"""Equinox's and PyTorch's transposed convolution.

It acts on a batch, channels last, and is an `nnx.Conv` over a dilated input.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class ConvTranspose(nnx.Conv):
    """The transpose of a convolution with these options.

    Unlike `nnx.ConvTranspose` it has groups, `padding` is that of the
    convolution, and `output_padding` tells apart the sizes that it maps to
    the same one.

    Reference: `equinox.nn.ConvTranspose`, `torch.nn.ConvTranspose2d`.
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
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Makes a layer.

        Args:
            in_features: number of channels, the last axis of the input.
            out_features: number of channels, the last axis of the output.
            kernel_size: of the kernel, along each axis.
            strides: of the convolution that this is the transpose of.
            padding: likewise: a number, one for each axis, a pair for each,
                `"SAME"`, `"SAME_LOWER"` or `"VALID"`.
            padding_mode: likewise; `"CIRCULAR"` with the `"SAME"`s only.
            output_padding: how much larger than the smallest size the output
                is, or with the `"SAME"`s smaller than the largest.
            kernel_dilation: steps between two entries of the kernel.
            groups: parts of the channels that do not see each other.
            use_bias: whether to add a bias.
            param_dtype: of the parameters.
            rngs: to draw the parameters with.
        """
        axes = len(kernel_size)
        strides = _per_axis(strides, axes)
        extra = _per_axis(output_padding, axes)
        kernel_dilation = _per_axis(kernel_dilation, axes)
        for a, s in zip(extra, strides, strict=True):
            if not 0 <= a < s:
                raise ValueError(
                    f"ConvTranspose output_padding: got {extra}, expected "
                    f"less than the strides {strides}. Lower it."
                )
        circular = padding_mode == "CIRCULAR"
        same = padding in ("SAME", "SAME_LOWER")
        if circular and (any(extra) or not same):
            raise ValueError(
                f"ConvTranspose circular padding: got {padding!r} with "
                f"output_padding {extra}, expected 'SAME' or 'SAME_LOWER' "
                "without. Take padding_mode='ZEROS'."
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
                lower, upper = _pair(padding, axis)
            pads.append((reach - lower, reach - upper + a))
        # As many whole inputs as the padding holds come from the other end.
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
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(
        self, inputs: Float[Array, "B *S I"], out_sharding: Any = None
    ) -> Array:
        """Computes the batch's outputs."""
        inputs = jnp.pad(inputs, [(0, 0), *self.wraps, (0, 0)], mode="wrap")
        return super().__call__(inputs, out_sharding)


def _per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def _pair(padding: Any, axis: int) -> tuple[int, int]:
    if padding == "VALID":
        return 0, 0
    pad = padding if isinstance(padding, int) else padding[axis]
    return (pad, pad) if isinstance(pad, int) else (pad[0], pad[1])
