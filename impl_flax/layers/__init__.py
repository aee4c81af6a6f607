"""What `nnx` lacks: layers with Equinox's meaning."""

from impl_flax.layers._batch_norm import BatchNorm as BatchNorm
from impl_flax.layers._batch_norm import batch_norm as batch_norm
from impl_flax.layers._reparametrisation import SpectralNorm as SpectralNorm
