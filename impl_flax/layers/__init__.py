"""What `nnx` lacks: layers with Equinox's meaning."""

from impl_flax.layers._attention import (
    MultiheadAttention as MultiheadAttention,
)
from impl_flax.layers._attention import (
    RotaryPositionalEmbedding as RotaryPositionalEmbedding,
)
from impl_flax.layers._attention import (
    dot_product_attention as dot_product_attention,
)
from impl_flax.layers._batch_norm import BatchNorm as BatchNorm
from impl_flax.layers._batch_norm import batch_norm as batch_norm
from impl_flax.layers._convolution import ConvTranspose as ConvTranspose
from impl_flax.layers._linear import MLP as MLP
from impl_flax.layers._linear import ScalarLinear as ScalarLinear
from impl_flax.layers._normalisation import RMSNorm as RMSNorm
from impl_flax.layers._recurrent import GRUCell as GRUCell
from impl_flax.layers._reparametrisation import SpectralNorm as SpectralNorm
from impl_flax.layers._reparametrisation import WeightNorm as WeightNorm
