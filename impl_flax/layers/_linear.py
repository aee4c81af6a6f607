"""Linear layers of Equinox: with `"scalar"` sizes, and the MLP.

The layers act on a batch like the stock layers.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

Size = int | Literal["scalar"]


class ScalarLinear(nnx.Linear):
    r"""A linear layer whose inputs or outputs may be scalars.

    .. math::
        y = x W + b

    A size of `"scalar"` is a size of 1 without an axis for it.

    Example:

        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from impl_flax.layers import ScalarLinear
        >>> linear = ScalarLinear(3, "scalar", rngs=nnx.Rngs(0))
        >>> linear(jnp.ones((5, 3))).shape
        (5,)

    References:
        Counterpart: `equinox.nn.Linear`.
    """

    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        *,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """Creates the layer.

        Args:
            in_features: the size of the input's last axis, or `"scalar"`.
            out_features: the size of the output's last axis, or `"scalar"`.
            rngs: the streams of the initial parameters.
            options: further arguments of `nnx.Linear`.
        """
        super().__init__(
            1 if in_features == "scalar" else in_features,
            1 if out_features == "scalar" else out_features,
            rngs=rngs,
            **options,
        )
        self.scalar_in = in_features == "scalar"
        self.scalar_out = out_features == "scalar"

    def __call__(
        self, x: Float[Array, "..."], out_sharding: Any = None
    ) -> Float[Array, "..."]:
        """Maps a batch of vectors or of scalars."""
        if self.scalar_in:
            x = x[..., None]
        y = super().__call__(x, out_sharding)
        return y[..., 0] if self.scalar_out else y


class MLP(nnx.Module):
    r"""Linear layers with an activation after each hidden layer.

    .. math::
        h_0 = x, \qquad
        h_{i+1} = \phi(h_i W_i + b_i), \qquad
        y = \psi(h_d W_d + b_d)

    for :math:`d` hidden layers, activation :math:`\phi` and final activation
    :math:`\psi`. Without hidden layers, the final activation is not applied.

    Example:

        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from impl_flax.layers import MLP
        >>> mlp = MLP(3, "scalar", width_size=8, depth=2, rngs=nnx.Rngs(0))
        >>> mlp(jnp.ones((5, 3))).shape
        (5,)

    References:
        Counterpart: `equinox.nn.MLP`.
    """

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        width_size: int,
        depth: int,
        activation: Callable[[Array], Array] = nnx.relu,
        final_activation: Callable[[Array], Array] = nnx.identity,
        *,
        use_bias: bool = True,
        use_final_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Creates a network with `depth` hidden layers.

        Args:
            in_size: the size of the input's last axis, or `"scalar"`.
            out_size: the size of the output's last axis, or `"scalar"`.
            width_size: the size of each hidden layer.
            depth: the number of hidden layers.
            activation: applied after each hidden layer.
            final_activation: applied after the last layer, if there are
                hidden layers.
            use_bias: whether hidden layers have a bias.
            use_final_bias: whether the last layer has a bias.
            dtype: the dtype of the computation, by default inferred from the
                input and the parameters.
            param_dtype: the dtype of the parameters.
            rngs: the streams of the initial parameters.
        """
        sizes = [in_size, *[width_size] * depth, out_size]
        self.layers = nnx.List(
            ScalarLinear(
                sizes[i],
                sizes[i + 1],
                use_bias=use_bias if i < depth else use_final_bias,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            for i in range(depth + 1)
        )
        self.activation = activation
        self.final_activation = final_activation

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Maps a batch of vectors or of scalars."""
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(layer(x))
        return self.final_activation(last(x)) if hidden else last(x)
