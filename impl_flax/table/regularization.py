"""Flax's dropout."""

from typing import Any, Literal

import jax.random as jr
from flax import nnx

from impl_flax.table import calls
from impl_flax.table.column import constructs


class _PerExample(nnx.Module):
    """Maps a Dropout over the batch, with one random key per example."""

    def __init__(self, dropout: nnx.Dropout):
        self.dropout = dropout

    def __call__(self, x: Any, *, rngs: Any) -> Any:
        def drop(x: Any, key: Any) -> Any:
            return self.dropout(x, rngs=key)

        return nnx.vmap(drop)(x, jr.split(rngs, len(x)))


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
) -> nnx.Module:
    """Returns a Dropout that samples one mask per batch or per example."""
    del rngs  # a key is passed to each call
    if mask == "example":
        return _PerExample(nnx.Dropout(p))
    return nnx.Dropout(p, broadcast_dims=broadcast_dims)
