"""Submodules in a list, or stacked in one: a module is a PyTree, like a list.

With `scan`, `eqx.filter_vmap` stacks the blocks and their states, and
`jax.lax.scan` runs them, so that the program contains the block once.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
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
    """A stack of identical blocks, followed by a linear layer.

    Attributes:
        blocks: a list, or with `scan` one block whose arrays are stacked.
        head: the last layer.
        scan: whether the blocks are stacked, and run in a `jax.lax.scan`.
        remat: whether the backward pass computes the insides of each block
            again instead of keeping them.
    """

    blocks: list[Block] | Block
    head: eqx.nn.Linear
    scan: bool = eqx.field(static=True)
    remat: bool = eqx.field(static=True)

    def __init__(
        self,
        depth: int = 2,
        size: int = 8,
        *,
        batch_norm: BatchNormDialect = "standard",
        momentum: float = 0.99,
        eps: float = 1e-5,
        scan: bool = False,
        remat: bool = False,
        key: PRNGKeyArray,
    ):
        block_key, head_key = jr.split(key)
        block_keys = jr.split(block_key, depth)

        def make_block(key):
            return Block(
                size,
                batch_norm=batch_norm,
                momentum=momentum,
                eps=eps,
                key=key,
            )

        if scan:
            self.blocks = eqx.filter_vmap(make_block)(block_keys)
        else:
            self.blocks = [make_block(key) for key in block_keys]
        self.head = eqx.nn.Linear(size, size, key=head_key)
        self.scan = scan
        self.remat = remat

    def __call__(
        self,
        x: Float[Array, " size"],
        state: eqx.nn.State,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, " size"], eqx.nn.State]:
        del key
        if isinstance(self.blocks, list):
            for block in self.blocks:
                x, state = self._call(block, x, state)
        else:
            x, state = self._scan(self.blocks, x, state)
        return self.head(x), state

    def _call(self, block, x, state):
        """Calls a block."""
        if not self.remat:
            return block(x, state)
        x, state = eqx.filter_checkpoint(block)(x, state)
        # A constant, such as the flag of "ema", becomes a Python bool there.
        return x, jax.tree.map(jnp.asarray, state)

    def _scan(self, blocks, x, state):
        """Calls one slice of the blocks, with one of their state, in turn."""
        arrays, static = eqx.partition(blocks, eqx.is_array)

        def call(x, slices):
            arrays, state = slices
            return self._call(eqx.combine(arrays, static), x, state)

        states = state.substate(blocks)
        x, states = jax.lax.scan(call, x, (arrays, states))
        return x, state.update(states)
