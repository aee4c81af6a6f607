"""Linear layers of Equinox: with sizes that are "scalar", and its MLP.

They act on a batch, like any stock layer.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

Size = int | Literal["scalar"]


class ScalarLinear(nnx.Linear):
    """A Linear whose sizes may be `"scalar"`: 1, without an axis.

    Reference: `equinox.nn.Linear`.
    """

    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        *,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """Makes a layer.

        Args:
            in_features: size of the input's last axis, or `"scalar"`.
            out_features: size of the output's last axis, or `"scalar"`.
            rngs: draws the parameters.
            options: those of `nnx.Linear`.
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
    """Linears with activations between them.

    Without hidden layers there is no final activation either.

    Reference: `equinox.nn.MLP`.
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
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Makes a network of `depth` hidden layers.

        Args:
            in_size: size of the input's last axis, or `"scalar"`.
            out_size: size of the output's last axis, or `"scalar"`.
            width_size: size of each hidden layer.
            depth: number of hidden layers.
            activation: after each hidden layer.
            final_activation: after the last layer, if there is a hidden one.
            use_bias: whether hidden layers have a bias.
            use_final_bias: whether the last layer has a bias.
            param_dtype: of the parameters.
            rngs: draws the parameters.
        """
        sizes = [in_size, *[width_size] * depth, out_size]
        self.layers = nnx.List(
            ScalarLinear(
                sizes[i],
                sizes[i + 1],
                use_bias=use_bias if i < depth else use_final_bias,
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
