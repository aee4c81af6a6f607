"""Low-rank adaptation, as in Flax NNX.

The layers act on one example, take `key=` and ignore it, like any stock layer.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray


class LoRA(eqx.Module):
    """An update of low rank, alone or added to another layer's output.

    Reference: Hu et al., "LoRA: Low-Rank Adaptation of Large Language
        Models", 2021, arXiv:2106.09685.
    """

    lora_a: Float[Array, "I R"]
    lora_b: Float[Array, "R O"]
    base_module: Callable[..., Array] | None

    def __init__(
        self,
        in_features: int,
        rank: int,
        out_features: int,
        *,
        base_module: Callable[..., Array] | None = None,
        dtype=None,
        key: PRNGKeyArray,
    ):
        """Makes an update of a given rank that starts at zero.

        Args:
            in_features: size of the input.
            rank: size between the two factors.
            out_features: size of the output.
            base_module: the layer whose output is updated, if any.
            dtype: of the parameters; JAX's default if `None`.
            key: draws `lora_a`.
        """
        dtype = jnp.result_type(float) if dtype is None else dtype
        bound = math.sqrt(6 / in_features)
        shape = (in_features, rank)
        self.lora_a = jr.uniform(key, shape, dtype, -bound, bound)
        self.lora_b = jnp.zeros((rank, out_features), dtype)
        self.base_module = base_module

    def __call__(
        self, x: Float[Array, " I"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " O"]:
        """Maps one example."""
        del key
        y = x @ self.lora_a @ self.lora_b
        return y if self.base_module is None else y + self.base_module(x)


class LoRALinear(eqx.Module):
    """A Linear with an update of low rank.

    Reference: `flax.nnx.LoRALinear`.
    """

    linear: eqx.nn.Linear
    lora: LoRA

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rank: int,
        use_bias: bool = True,
        dtype=None,
        key: PRNGKeyArray,
    ):
        """Makes a Linear and an update that starts at zero.

        Args:
            in_features: size of the input.
            out_features: size of the output.
            rank: size between the update's two factors.
            use_bias: whether the Linear has a bias.
            dtype: of the parameters; JAX's default if `None`.
            key: draws the parameters.
        """
        linear_key, lora_key = jr.split(key)
        self.linear = eqx.nn.Linear(
            in_features, out_features, use_bias, dtype=dtype, key=linear_key
        )
        self.lora = LoRA(
            in_features, rank, out_features, dtype=dtype, key=lora_key
        )

    def __call__(
        self, x: Float[Array, " I"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " O"]:
        """Maps one example."""
        del key
        return self.linear(x) + self.lora(x)
