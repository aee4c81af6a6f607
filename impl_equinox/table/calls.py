"""How an Equinox layer, which takes one example, is called on a batch."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr


def per_example(layer: Any, state: Any, *inputs: Any, key: Any) -> Any:
    """Maps the layer over the batch."""
    del key
    return jax.vmap(layer)(*inputs), state


def channels_first(layer: Any, state: Any, x: Any, *, key: Any) -> Any:
    """Maps the layer over the batch, with the channels moved to the front."""
    del key
    x = jnp.moveaxis(x, -1, 1)  # (B, *S, C) -> (B, C, *S)
    return jnp.moveaxis(jax.vmap(layer)(x), 1, -1), state


def with_state(layer: Any, state: Any, x: Any, *, key: Any) -> Any:
    """Maps a stateful layer over the batch, which shares one state.

    The channels are moved to the front.
    """
    del key
    batch_layer = jax.vmap(
        layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    y, state = batch_layer(jnp.moveaxis(x, -1, 1), state)
    return jnp.moveaxis(y, 1, -1), state


def with_keys(layer: Any, state: Any, *inputs: Any, key: Any) -> Any:
    """Maps the layer over the batch, with one random key per example."""
    keys = jr.split(key, len(inputs[0]))

    def call(*inputs_and_key: Any) -> Any:
        *inputs, key = inputs_and_key
        return layer(*inputs, key=key)

    return jax.vmap(call)(*inputs, keys), state
