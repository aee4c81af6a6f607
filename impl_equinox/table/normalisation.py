"""Equinox's normalisation of one example."""

from typing import Any

import equinox as eqx
import jax

from impl_equinox import layers
from impl_equinox.table import calls


def layer_norm(shape, *, eps, use_weight, use_bias, masked, key):
    """Makes a LayerNorm over all axes of an example."""
    del key
    # The stock layer takes no mask.
    make = layers.LayerNorm if masked else eqx.nn.LayerNorm
    return make(shape, eps, use_weight, use_bias)


def rms_norm(shape, *, eps, use_weight, use_bias, key):
    """Makes an RMSNorm over all axes of an example."""
    del key
    return eqx.nn.RMSNorm(shape, eps, use_weight, use_bias)


def group_norm(groups, channels, *, eps, channelwise_affine, key):
    """Makes a GroupNorm over groups of channels."""
    del key
    return eqx.nn.GroupNorm(groups, channels, eps, channelwise_affine)


def instance_norm(channels, *, eps, channelwise_affine, key):
    """Makes a GroupNorm in which each channel is a group."""
    del key
    return eqx.nn.GroupNorm(channels, channels, eps, channelwise_affine)


def _with_mask(layer: Any, state: Any, x: Any, *mask: Any, key: Any) -> Any:
    """Maps the layer over the batch, and over its masks."""
    if not mask:
        return calls.per_example(layer, state, x, key=key)
    return jax.vmap(lambda x, mask: layer(x, mask=mask))(x, *mask), state


CALLS = {
    "layer_norm": _with_mask,
    "group_norm": calls.channels_first,
    "instance_norm": calls.channels_first,
}
