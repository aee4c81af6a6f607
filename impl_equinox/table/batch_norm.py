"""Equinox's batch normalization."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from common.layers import BatchNormDialect
from impl_equinox import layers
from impl_equinox.table.column import constructs


def _call(layer: Any, state: Any, x: Any, *mask: Any, key: Any) -> Any:
    """Maps the layer over the batch, which shares one state.

    It computes in float32 or wider, because the stock layer rounds its
    statistics to the dtype of its input.
    """
    del key
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def call(state: Any, x: Any, *mask: Any) -> Any:
        options = {"mask": mask[0]} if mask else {}
        return layer(x, state, **options)

    # (B, *S, C) -> (B, C, *S)
    arrays = [jnp.moveaxis(array, -1, 1) for array in (wide, *mask)]
    y, state = jax.vmap(
        call,
        axis_name="batch",
        in_axes=(None, *[0] * len(arrays)),
        out_axes=(0, None),
    )(state, *arrays)
    return jnp.moveaxis(y, 1, -1).astype(x.dtype), state


@constructs(
    "batch_norm",
    call=_call,
    stock=("BatchNorm",),
    kind="custom",
    using="BatchNorm",
    page="normalisation",
)
def batch_norm(
    features: int,
    *,
    dialect: BatchNormDialect,
    momentum: float,
    eps: float,
    channelwise_affine: bool,
    masked: bool,
    key: PRNGKeyArray,
) -> eqx.Module:
    """Returns the BatchNorm of a dialect."""
    del key, masked  # the mask is an argument of the call
    return layers.batch_norm(
        features,
        dialect,
        momentum=momentum,
        eps=eps,
        channelwise_affine=channelwise_affine,
    )
