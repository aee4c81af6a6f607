"""Equinox's batch normalisation."""

from typing import Any

import jax
import jax.numpy as jnp

from impl_equinox import layers


def batch_norm(
    features, *, dialect, momentum, eps, channelwise_affine, masked, key
):
    """Makes a BatchNorm that speaks a dialect."""
    del key, masked  # a mask is an argument of the call
    return layers.batch_norm(
        features,
        dialect,
        momentum=momentum,
        eps=eps,
        channelwise_affine=channelwise_affine,
    )


def _call(layer: Any, state: Any, x: Any, *mask: Any, key: Any) -> Any:
    """Threads the state, which the batch shares; in float32 or more.

    The stock layer would round its statistics to the dtype of its input.
    """
    del key
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def call(state, x, *mask):
        options = {"mask": mask[0]} if mask else {}
        return layer(x, state, **options)

    # (B, *S, C) -> (B, C, *S)
    arrays = [jnp.moveaxis(it, -1, 1) for it in (wide, *mask)]
    y, state = jax.vmap(
        call,
        axis_name="batch",
        in_axes=(None, *[0] * len(arrays)),
        out_axes=(0, None),
    )(state, *arrays)
    return jnp.moveaxis(y, 1, -1).astype(x.dtype), state


CALLS = {"batch_norm": _call}
