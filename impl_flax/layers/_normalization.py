"""RMS normalization with a bias."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.typing import Initializer
from jaxtyping import Array, Bool, Float


class RMSNorm(nnx.RMSNorm):
    r"""RMS normalization with a bias.

    .. math::
        y = \frac{x}{\sqrt{\mathrm{E}[x^2] + \epsilon}} \gamma + \beta

    This is `nnx.RMSNorm` with a bias added to its output.

    Example:

        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from impl_flax.layers import RMSNorm
        >>> norm = RMSNorm(2, rngs=nnx.Rngs(0))
        >>> norm(jnp.array([[2.0, -2.0]])).round(3).tolist()
        [[1.0, -1.0]]

    References:
        Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019,
        arXiv:1910.07467. Counterpart: `equinox.nn.RMSNorm`.
    """

    def __init__(
        self,
        num_features: int,
        *,
        bias_init: Initializer = nnx.initializers.zeros,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """Creates a layer for `num_features` features.

        Args:
            num_features: the number of features.
            bias_init: the initializer of the bias.
            param_dtype: the dtype of the parameters.
            rngs: the streams of the initial parameters.
            options: further arguments of `nnx.RMSNorm`.
        """
        super().__init__(
            num_features, param_dtype=param_dtype, rngs=rngs, **options
        )
        self.bias = nnx.Param(
            bias_init(rngs.params(), (num_features,), param_dtype)
        )

    def __call__(
        self,
        x: Float[Array, "*S"],
        mask: Bool[Array, "*#S"] | None = None,
    ) -> Float[Array, "*S"]:
        """Normalizes a batch.

        Args:
            x: the batch.
            mask: true for the elements that contribute to the mean square.
        """
        axes = self.feature_axes
        shape = [1] * x.ndim
        for axis in axes if isinstance(axes, Iterable) else (axes,):
            shape[axis] = x.shape[axis]
        y = super().__call__(x, mask) + self.bias[...].reshape(shape)
        return y if self.dtype is None else y.astype(self.dtype)
