"""Custom layers: only what `nnx` lacks, with the semantics of Equinox.

Where Flax has a layer that computes the same as its counterpart in Equinox,
use the stock one.
"""

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
from impl_flax.layers._batch_norm import keep_dtypes as keep_dtypes
from impl_flax.layers._convolution import ConvTranspose as ConvTranspose
from impl_flax.layers._linear import MLP as MLP
from impl_flax.layers._linear import ScalarLinear as ScalarLinear
from impl_flax.layers._normalization import RMSNorm as RMSNorm
from impl_flax.layers._recurrent import GRUCell as GRUCell
from impl_flax.layers._regularization import Dropout as Dropout
from impl_flax.layers._reparametrization import SpectralNorm as SpectralNorm
from impl_flax.layers._reparametrization import WeightNorm as WeightNorm
