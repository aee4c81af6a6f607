"""A LayerNorm that takes a mask.

It acts on one example, and takes `key=` like any stock layer.
"""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray


class LayerNorm(eqx.Module):
    """Normalises one example by the mean and variance of what a mask leaves.

    `eqx.nn.LayerNorm`, but for the mask. It computes in float32 or more, and
    returns the dtype of its input.

    Reference: Ba, Kiros and Hinton, "Layer Normalization", 2016,
        arXiv:1607.06450. The mask is that of `nnx.LayerNorm`.
    """

    weight: Float[Array, "*S"] | None
    bias: Float[Array, "*S"] | None
    shape: tuple[int, ...] = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    def __init__(
        self,
        shape: int | Sequence[int],
        eps: float = 1e-5,
        use_weight: bool = True,
        use_bias: bool = True,
        dtype=None,
    ):
        """Makes a layer for examples of one shape.

        Args:
            shape: of an example.
            eps: added to the variance.
            use_weight: whether to multiply by a weight.
            use_bias: whether to add a bias.
            dtype: of the parameters; JAX's default if `None`.
        """
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.eps = eps
        self.weight = jnp.ones(self.shape, dtype) if use_weight else None
        self.bias = jnp.zeros(self.shape, dtype) if use_bias else None

    def __call__(
        self,
        x: Float[Array, "*S"],
        *,
        mask: Bool[Array, "*#S"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*S"]:
        """Normalises one example.

        Args:
            x: the example.
            mask: which of its elements count for the statistics.
            key: unused, as every layer takes it.

        Raises:
            ValueError: for an example of another shape.
        """
        del key
        if x.shape != self.shape:
            raise ValueError(
                f"LayerNorm example: got shape {x.shape}, expected "
                f"{self.shape}. Map over further axes with `jax.vmap`."
            )
        dtype = x.dtype
        x = x.astype(jnp.promote_types(dtype, jnp.float32))
        mean = jnp.mean(x, where=mask)
        var = jnp.mean(jnp.square(x - mean), where=mask)
        x = (x - mean) * lax.rsqrt(var + self.eps)
        if self.weight is not None:
            x = x * self.weight
        if self.bias is not None:
            x = x + self.bias
        return x.astype(dtype)
