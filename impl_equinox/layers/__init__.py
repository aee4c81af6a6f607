"""What `equinox.nn` lacks: layers with Flax's meaning."""

from impl_equinox.layers._batch_norm import (
    StandardBatchNorm as StandardBatchNorm,
)
from impl_equinox.layers._batch_norm import batch_norm as batch_norm
from impl_equinox.layers._regularisation import Dropout as Dropout
