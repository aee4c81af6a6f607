"""Custom layers: only what `equinox.nn` lacks, with the semantics of Flax NNX.

Where Equinox has a layer that computes the same as its counterpart in Flax,
use the stock one.
"""

from impl_equinox.layers._attention import (
    GroupedQueryAttention as GroupedQueryAttention,
)
from impl_equinox.layers._attention import (
    RotaryPositionalEmbedding as RotaryPositionalEmbedding,
)
from impl_equinox.layers._batch_norm import BatchNorm as BatchNorm
from impl_equinox.layers._batch_norm import batch_norm as batch_norm
from impl_equinox.layers._convolution import MaskedConv as MaskedConv
from impl_equinox.layers._linear import Einsum as Einsum
from impl_equinox.layers._linear import LinearGeneral as LinearGeneral
from impl_equinox.layers._lora import LoRA as LoRA
from impl_equinox.layers._lora import LoRALinear as LoRALinear
from impl_equinox.layers._normalization import LayerNorm as LayerNorm
from impl_equinox.layers._recurrent import RNN as RNN
from impl_equinox.layers._recurrent import Bidirectional as Bidirectional
from impl_equinox.layers._recurrent import SimpleCell as SimpleCell
from impl_equinox.layers._regularization import Dropout as Dropout
