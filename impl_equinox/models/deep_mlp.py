"""Submodules in a list: a module is a PyTree, and so is a Python list."""

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from common.layers import BatchNormDialect
from impl_equinox import layers


class Block(eqx.Module):
    """Linear, BatchNorm, relu."""

    linear: eqx.nn.Linear
    norm: eqx.nn.BatchNorm | layers.BatchNorm

    def __init__(
        self,
        size: int,
        *,
        batch_norm: BatchNormDialect,
        momentum: float,
        eps: float,
        key: PRNGKeyArray,
    ):
        self.linear = eqx.nn.Linear(size, size, use_bias=False, key=key)
        self.norm = layers.BatchNorm(
            input_size=size, axis_name="batch", eps=eps, momentum=momentum
        )
        if batch_norm != "standard":
            self.norm = layers.batch_norm(
                size, batch_norm, momentum=momentum, eps=eps
            )

    def __call__(
        self, x: Float[Array, " size"], state: eqx.nn.State
    ) -> tuple[Float[Array, " size"], eqx.nn.State]:
        x = self.linear(x)
        x, state = self.norm(x, state)
        x = jax.nn.relu(x)
        return x, state


class DeepMLP(eqx.Module):
    """A stack of identical blocks, followed by a linear layer."""

    blocks: list[Block]
    head: eqx.nn.Linear

    def __init__(
        self,
        depth: int = 2,
        size: int = 8,
        *,
        batch_norm: BatchNormDialect = "standard",
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
