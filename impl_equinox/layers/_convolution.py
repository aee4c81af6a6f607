"""A convolution with a masked kernel and with input dilation.

The layer acts on one example, channels first, like `eqx.nn.Conv`, of which it
is a subclass.
"""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray


class MaskedConv(eqx.nn.Conv):
    r"""A convolution whose kernel is masked, or whose input is dilated.

    .. math::
        y = (M \odot W) * x + b

    A mask that hides the entries after the center of the kernel gives the
    causal convolution of PixelCNN. The mask is an array of the layer, but
    not a parameter: it is boolean, so `eqx.is_inexact_array` does not select
    it, and no gradient flows to the masked entries of the weight.

    Example:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from impl_equinox.layers import MaskedConv
        >>> conv = MaskedConv(
        ...     num_spatial_dims=1,
        ...     in_channels=1,
        ...     out_channels=2,
        ...     kernel_size=3,
        ...     padding=1,
        ...     mask=[1, 1, 0],
        ...     key=jax.random.key(0),
        ... )
        >>> conv(jnp.ones((1, 5))).shape
        (2, 5)
        >>> conv.mask.shape, conv.mask[0, 0].tolist()
        ((2, 1, 3), [True, True, False])

    References:
        van den Oord et al., "Pixel Recurrent Neural Networks", 2016,
        arXiv:1601.06759. Counterpart: `nnx.Conv(mask=, input_dilation=)`.
    """

    mask: Bool[Array | np.ndarray, "O I *K"] | None
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
        mask: Array | np.ndarray | Sequence | None = None,
        input_dilation: int | Sequence[int] = 1,
        key: PRNGKeyArray,
    ):
        """Creates the layer.

        Args:
            num_spatial_dims: the number of spatial axes.
            in_channels: the number of input channels.
            out_channels: the number of output channels.
            kernel_size: the size of the kernel along each axis.
            stride: the stride along each axis.
            padding: the zero padding, applied after the input is dilated.
            dilation: the dilation of the kernel.
            groups: the number of groups that the channels are split into.
            use_bias: whether to add a bias.
            dtype: the dtype of the parameters, by default JAX's default
                float dtype.
            mask: broadcast to the shape of the weight, (O, I / groups,
                *kernel); the kernel is zero where the mask is zero.
            input_dilation: the dilation of the input.
            key: a PRNG key for the initial parameters.
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
        self.mask = None
        if mask is not None:
            # A NumPy array has values while `eqx.filter_eval_shape` traces
            # this constructor; a JAX array would be a tracer.
            is_kept = np.asarray(mask) != 0
            self.mask = np.broadcast_to(is_kept, self.weight.shape).copy()

    def __call__(
        self, x: Float[Array, "I *S"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "O *S2"]:
        """Convolves one example.

        Args:
            x: the example.
            key: ignored; provided for compatibility with other layers.
        """
        del key
        interior = [(0, 0, d - 1) for d in self.input_dilation]
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *interior])
        layer = self
        if self.mask is not None:
            weight = jnp.where(self.mask, self.weight, 0)
            layer = eqx.tree_at(lambda layer: layer.weight, self, weight)
        return super(MaskedConv, layer).__call__(x)
