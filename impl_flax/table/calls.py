"""How a Flax layer, which takes a batch, is called on one."""

from typing import Any


def on_batch(layer: Any, *inputs: Any, key: Any) -> Any:
    """Calls the layer on the batch."""
    del key
    return layer(*inputs)


def with_key(layer: Any, *inputs: Any, key: Any) -> Any:
    """Calls the layer on the batch with a random key."""
    return layer(*inputs, rngs=key)


def with_mask(layer: Any, x: Any, *mask: Any, key: Any) -> Any:
    """Calls the layer on the batch, with a mask if there is one."""
    del key
    return layer(x, mask=mask[0]) if mask else layer(x)
