"""Submodules in a list: a PyTree like any other, with no special container."""

from typing import Literal

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from impl_equinox import layers


class Block(eqx.Module):
    """Linear, BatchNorm, relu."""

    linear: eqx.nn.Linear
    norm: eqx.nn.BatchNorm | layers.BatchNorm

    def __init__(
        self,
        size: int,
        *,
        batch_norm: Literal["ema", "batch", "standard", "torch"],
        momentum: float,
        eps: float,
        key: PRNGKeyArray,
    ):
        self.linear = eqx.nn.Linear(size, size, use_bias=False, key=key)
        self.norm = layers.batch_norm(
            size, batch_norm, momentum=momentum, eps=eps
        )

    def __call__(
        self, x: Float[Array, " size"], state: eqx.nn.State
    ) -> tuple[Float[Array, " size"], eqx.nn.State]:
        x, state = self.norm(self.linear(x), state)
        return jax.nn.relu(x), state


class DeepMLP(eqx.Module):
    """A stack of equal blocks and a Linear on top."""

    blocks: list[Block]
    head: eqx.nn.Linear

    def __init__(
        self,
        depth: int = 2,
        size: int = 8,
        *,
        batch_norm: Literal["ema", "batch", "standard", "torch"] = "standard",
        momentum: float = 0.99,
        eps: float = 1e-5,
        key: PRNGKeyArray,
    ):
        *block_keys, head_key = jr.split(key, depth + 1)
        self.blocks = [
            Block(
                size,
                batch_norm=batch_norm,
                momentum=momentum,
                eps=eps,
                key=block_key,
            )
            for block_key in block_keys
        ]
        self.head = eqx.nn.Linear(size, size, key=head_key)

    def __call__(
        self,
        x: Float[Array, " size"],
        state: eqx.nn.State,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, " size"], eqx.nn.State]:
        del key
        for block in self.blocks:
            x, state = block(x, state)
        return self.head(x), state
