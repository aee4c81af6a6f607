"""A convolution with a masked kernel, over a dilated input.

It acts on one example, channels first, like `eqx.nn.Conv`, which it extends.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray


class MaskedConv(eqx.nn.Conv):
    """A convolution whose kernel is masked, or whose input is dilated.

    With a mask over what comes later it is the layer of PixelCNN.

    Reference: van den Oord et al., "Pixel Recurrent Neural Networks", 2016,
        arXiv:1601.06759; `flax.nnx.Conv(mask=, input_dilation=)`.
    """

    mask: Any = eqx.field(static=True)
    input_dilation: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        num_spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        use_bias: bool = True,
        dtype=None,
        *,
        mask: Array | np.ndarray | None = None,
        input_dilation: int | Sequence[int] = 1,
        key: PRNGKeyArray,
    ):
        """Makes a layer.

        Args:
            num_spatial_dims: number of spatial axes.
            in_channels: number of channels, the first axis of the input.
            out_channels: number of channels, the first axis of the output.
            kernel_size: of the kernel, along each axis.
            stride: steps between two windows.
            padding: with zeros, after the input is dilated.
            dilation: steps between two entries of the kernel.
            groups: parts of the channels that do not see each other.
            use_bias: whether to add a bias.
            dtype: of the parameters.
            mask: of the weight, broadcast to (O, I / groups, *kernel); where
                it is zero, so is the kernel.
            input_dilation: steps between two entries of the input.
            key: to draw the parameters with.
        """
        super().__init__(
            num_spatial_dims,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            use_bias,
            dtype=dtype,
            key=key,
        )
        if isinstance(input_dilation, int):
            input_dilation = (input_dilation,) * num_spatial_dims
        self.input_dilation = tuple(input_dilation)
        # Nested tuples, which are neither parameters nor traced.
        self.mask = None if mask is None else _nested(np.asarray(mask) != 0)

    def __call__(
        self, x: Float[Array, "I *S"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "O *S2"]:
        """Convolves one example."""
        del key
        inner = [(0, 0, d - 1) for d in self.input_dilation]
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *inner])
        layer = self
        if self.mask is not None:
            weight = jnp.where(np.array(self.mask), self.weight, 0)
            layer = eqx.tree_at(lambda layer: layer.weight, self, weight)
        return super(MaskedConv, layer).__call__(x)


def _nested(x: Any) -> Any:
    return tuple(map(_nested, x)) if np.ndim(x) else bool(x)
