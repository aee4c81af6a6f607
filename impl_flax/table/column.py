"""Flax's column of the layer table, and the decorator that fills it."""

from common.layers.constructors import Column
from impl_flax.table import calls

COLUMN = Column(
    "impl_flax.table",
    call=calls.on_batch,
    address="https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/"
    "{page}.html#flax.nnx.{name}",
)
constructs = COLUMN.constructs
