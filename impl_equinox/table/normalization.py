"""Equinox's layers that normalize one example at a time."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from impl_equinox import layers
from impl_equinox.table import calls
from impl_equinox.table.column import constructs


def _with_mask(layer: Any, state: Any, x: Any, *mask: Any, key: Any) -> Any:
    """Maps the layer over the batch, and over the masks if there are any."""
    if not mask:
        return calls.per_example(layer, state, x, key=key)
    return jax.vmap(lambda x, mask: layer(x, mask=mask))(x, *mask), state


@constructs(
    "layer_norm",
    call=_with_mask,
    stock=("LayerNorm",),
    kind="custom",
    using="LayerNorm",
    page="normalisation",
)
def layer_norm(
    shape: tuple[int, ...],
    *,
    eps: float,
    use_weight: bool,
    use_bias: bool,
    masked: bool,
    key: PRNGKeyArray,
) -> eqx.Module:
    """Returns a LayerNorm over all axes of an example."""
    del key
    # The stock layer does not take a mask.
    make = layers.LayerNorm if masked else eqx.nn.LayerNorm
    return make(shape, eps, use_weight, use_bias)


@constructs("rms_norm", stock=("RMSNorm",), page="normalisation")
def rms_norm(
    shape: tuple[int, ...],
    *,
    eps: float,
    use_weight: bool,
    use_bias: bool,
    key: PRNGKeyArray,
) -> eqx.nn.RMSNorm:
    """Returns an RMSNorm over all axes of an example."""
    del key
    return eqx.nn.RMSNorm(shape, eps, use_weight, use_bias)


@constructs(
    "group_norm",
    call=calls.channels_first,
    stock=("GroupNorm",),
    page="normalisation",
)
def group_norm(
    groups: int,
    channels: int,
    *,
    eps: float,
    channelwise_affine: bool,
    key: PRNGKeyArray,
) -> eqx.nn.GroupNorm:
    """Returns a GroupNorm over groups of channels."""
    del key
    return eqx.nn.GroupNorm(groups, channels, eps, channelwise_affine)


@constructs(
    "instance_norm",
    call=calls.channels_first,
    kind="composition",
    using="eqx.nn.GroupNorm with one group per channel",
)
def instance_norm(
    channels: int, *, eps: float, channelwise_affine: bool, key: PRNGKeyArray
) -> eqx.nn.GroupNorm:
    """Returns a GroupNorm with one group per channel."""
    del key
    return eqx.nn.GroupNorm(channels, channels, eps, channelwise_affine)
