"""Layer normalization with a mask.

The layer acts on one example. Like the stock layers it accepts `key=` and
ignores it.
"""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray


class LayerNorm(eqx.Module):
    r"""Layer normalization by the statistics of the elements in a mask.

    .. math::
        y = \frac{x - \mathrm{E}[x]}{\sqrt{\mathrm{Var}[x] + \epsilon}}
        \gamma + \beta

    The mean and the variance are those of the elements where the mask is
    true; all elements are normalized. Where the mask is false, a NaN or an
    infinity has no gradient and does not change that of the other elements.
    Without a mask this is `eqx.nn.LayerNorm`. The statistics are computed in
    float32 or wider; the output has the dtype of the input.

    Example:

        >>> import jax.numpy as jnp
        >>> from impl_equinox.layers import LayerNorm
        >>> norm = LayerNorm(shape=4)
        >>> x = jnp.array([1.0, 3.0, 100.0, 100.0])
        >>> mask = jnp.array([True, True, False, False])
        >>> norm(x, mask=mask)[:2].round(3).tolist()
        [-1.0, 1.0]

    References:
        Ba, Kiros and Hinton, "Layer Normalization", 2016, arXiv:1607.06450.
        Counterpart: `nnx.LayerNorm`, whose call accepts a mask.
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
        """Creates a layer for examples of one shape.

        Args:
            shape: the shape of an example.
            eps: added to the variance for numerical stability.
            use_weight: whether to multiply by a weight.
            use_bias: whether to add a bias.
            dtype: the dtype of the parameters, by default JAX's default
                float dtype.
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
        """Normalizes one example.

        Args:
            x: the example.
            mask: true for the elements that contribute to the statistics.
            key: ignored; provided for compatibility with other layers.

        Raises:
            ValueError: if the example does not have the shape of the layer.
        """
        del key
        if x.shape != self.shape:
            raise ValueError(
                f"LayerNorm example: got shape {x.shape}, expected "
                f"{self.shape}. Map over further axes with `jax.vmap`."
            )
        dtype = x.dtype
        x = x.astype(jnp.promote_types(dtype, jnp.float32))
        seen = x if mask is None else jnp.where(mask, x, 0)
        mean = jnp.mean(seen, where=mask)
        var = jnp.mean(jnp.square(seen - mean), where=mask)

        def apply(x):
            x = (x - mean) * lax.rsqrt(var + self.eps)
            if self.weight is not None:
                x = x * self.weight
            return x if self.bias is None else x + self.bias

        if mask is None:
            return apply(x).astype(dtype)
        # In a gradient, such an element would turn zeros into NaN.
        lost = ~(mask | jnp.isfinite(x))
        x = jnp.where(
            lost, lax.stop_gradient(apply(x)), apply(jnp.where(lost, 0, x))
        )
        return x.astype(dtype)
