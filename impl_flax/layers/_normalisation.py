"""An RMSNorm that has a bias."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.typing import Initializer
from jaxtyping import Array, Bool, Float


class RMSNorm(nnx.RMSNorm):
    """`nnx.RMSNorm`, with a bias added to its output.

    Reference: Zhang and Sennrich, "Root Mean Square Layer Normalization",
        2019, arXiv:1910.07467; `equinox.nn.RMSNorm` has the bias.
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
        """Makes a layer for `num_features` features.

        Args:
            num_features: elements of the scale and of the bias.
            bias_init: draws the bias.
            param_dtype: of the parameters.
            rngs: draws the parameters.
            options: the others of `nnx.RMSNorm`.
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
        """Normalises a batch.

        Args:
            x: the batch.
            mask: which elements count for the root mean square.
        """
        axes = self.feature_axes
        shape = [1] * x.ndim
        for axis in axes if isinstance(axes, Iterable) else (axes,):
            shape[axis] = x.shape[axis]
        y = super().__call__(x, mask) + self.bias[...].reshape(shape)
        return y if self.dtype is None else y.astype(self.dtype)
