"""How a Flax layer, which takes a batch, is called on one."""

from typing import Any

import jax.random as jr
from flax import nnx


def on_batch(layer: Any, *inputs: Any, key: Any) -> Any:
    """Calls the layer as it is."""
    del key
    return layer(*inputs)


def with_keys(layer: Any, *inputs: Any, key: Any) -> Any:
    """Maps the layer over the batch and over keys split from one."""
    keys = jr.split(key, len(inputs[0]))

    def call(*inputs_and_key: Any) -> Any:
        *inputs, key = inputs_and_key
        return layer(*inputs, rngs=key)

    return nnx.vmap(call)(*inputs, keys)
