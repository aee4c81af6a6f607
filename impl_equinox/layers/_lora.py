"""Low-rank adaptation, as in Flax NNX.

The layers act on one example. Like the stock layers they accept `key=` and
ignore it.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray


class LoRA(eqx.Module):
    r"""A low-rank update, alone or added to the output of another layer.

    .. math::
        y = f(x) + x A B

    where :math:`f` is the base module, or zero without one.

    Example:

        >>> import equinox as eqx
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from impl_equinox.layers import LoRA
        >>> key1, key2 = jax.random.split(jax.random.key(0))
        >>> linear = eqx.nn.Linear(3, 4, key=key1)
        >>> lora = LoRA(3, 2, 4, base_module=linear, key=key2)
        >>> x = jnp.ones(3)
        >>> bool((lora(x) == linear(x)).all())  # the update starts at zero
        True

    References:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models",
        2021, arXiv:2106.09685. Counterpart: `nnx.LoRA`.
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
        """Creates an update that starts at zero.

        Args:
            in_features: the size of the input.
            rank: the rank of the update.
            out_features: the size of the output.
            base_module: the layer whose output is updated, if any.
            dtype: the dtype of the parameters, by default JAX's default
                float dtype.
            key: a PRNG key for the initial value of `lora_a`.
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
        """Maps one example.

        Args:
            x: the example.
            key: ignored; provided for compatibility with other layers.
        """
        del key
        y = x @ self.lora_a @ self.lora_b
        return y if self.base_module is None else y + self.base_module(x)


class LoRALinear(eqx.Module):
    r"""A linear layer with a low-rank update.

    .. math::
        y = W x + b + x A B

    Example:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from impl_equinox.layers import LoRALinear
        >>> layer = LoRALinear(3, 4, rank=2, key=jax.random.key(0))
        >>> layer(jnp.ones(3)).shape
        (4,)
        >>> layer.lora.lora_a.shape, layer.lora.lora_b.shape
        ((3, 2), (2, 4))

    References:
        Counterpart: `nnx.LoRALinear`.
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
        """Creates a linear layer and an update that starts at zero.

        Args:
            in_features: the size of the input.
            out_features: the size of the output.
            rank: the rank of the update.
            use_bias: whether the linear layer has a bias.
            dtype: the dtype of the parameters, by default JAX's default
                float dtype.
            key: a PRNG key for the initial parameters.
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
        """Maps one example.

        Args:
            x: the example.
            key: ignored; provided for compatibility with other layers.
        """
        del key
        return self.linear(x) + self.lora(x)
