"""Equinox's column of the layer table, and the decorator that fills it."""

from common.layers.constructors import Column
from impl_equinox.table import calls

COLUMN = Column(
    "impl_equinox.table",
    call=calls.per_example,
    address="https://docs.kidger.site/equinox/api/nn/{page}/"
    "#equinox.nn.{name}",
)
constructs = COLUMN.constructs
