"""Flax's dropout."""

from typing import Literal

from flax import nnx

from impl_flax import layers
from impl_flax.table import calls
from impl_flax.table.column import constructs


@constructs(
    "dropout",
    call=calls.with_key,
    stock=("Dropout",),
    kind="settings",
    page="stochastic",
    keywords={"p": "rate"},
)
def dropout(
    p: float,
    *,
    mask: Literal["batch", "example"],
    broadcast_dims: tuple[int, ...],
    rngs: nnx.Rngs,
) -> nnx.Dropout | layers.Dropout:
    """Returns a Dropout that samples one mask per batch or per example."""
    del rngs  # a key is passed to each call
    if mask == "example":
        return layers.Dropout(p)
    return nnx.Dropout(p, broadcast_dims=broadcast_dims)
