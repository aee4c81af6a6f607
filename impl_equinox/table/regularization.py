"""Equinox's dropout."""

from typing import Any, Literal

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from impl_equinox import layers
from impl_equinox.table import calls
from impl_equinox.table.column import constructs


def _with_key(layer: Any, state: Any, x: Any, *, key: Any) -> Any:
    """Passes one key to a custom Dropout, one per example to a stock one."""
    if isinstance(layer, eqx.nn.Dropout):
        return calls.with_keys(layer, state, x, key=key)

    def one(x: Any) -> Any:
        return layer(x, key=key)

    return jax.vmap(one, axis_name="batch")(x), state


@constructs(
    "dropout",
    call=_with_key,
    stock=("Dropout",),
    kind="custom",
    using="Dropout",
    page="dropout",
)
def dropout(
    p: float,
    *,
    mask: Literal["batch", "example"],
    broadcast_dims: tuple[int, ...],
    key: PRNGKeyArray,
) -> eqx.Module:
    """Returns a Dropout that samples one mask per batch or per example."""
    del key
    if mask == "example":
        return eqx.nn.Dropout(p)
    # Axis 0 of an example is axis 1 of the batch.
    axes = tuple(dim - 1 for dim in broadcast_dims)
    return layers.Dropout(p, axis_name="batch", broadcast_axes=axes)
