"""Definitions of the layers in plain JAX: their variables and functions.

Specs are composed of these functions, and the layers of both libraries are
compared with them. They use `jax.numpy` and `jax.lax` primitives only and are
tested against NumPy in float64. Arrays are canonical: parameters have
PyTorch's axis order and batches are channels-last. The classes are the rows
of the layer table, `common.layers.table.LAYERS`.
"""

from common.layers._activation import ACTIVATIONS as ACTIVATIONS
from common.layers._activation import celu as celu
from common.layers._activation import elu as elu
from common.layers._activation import gelu as gelu
from common.layers._activation import glu as glu
from common.layers._activation import hard_sigmoid as hard_sigmoid
from common.layers._activation import hard_silu as hard_silu
from common.layers._activation import hard_tanh as hard_tanh
from common.layers._activation import identity as identity
from common.layers._activation import leaky_relu as leaky_relu
from common.layers._activation import log_sigmoid as log_sigmoid
from common.layers._activation import log_softmax as log_softmax
from common.layers._activation import logsumexp as logsumexp
from common.layers._activation import one_hot as one_hot
from common.layers._activation import prelu as prelu
from common.layers._activation import relu as relu
from common.layers._activation import relu6 as relu6
from common.layers._activation import selu as selu
from common.layers._activation import sigmoid as sigmoid
from common.layers._activation import silu as silu
from common.layers._activation import soft_sign as soft_sign
from common.layers._activation import softmax as softmax
from common.layers._activation import softplus as softplus
from common.layers._activation import standardize as standardize
from common.layers._activation import tanh as tanh
from common.layers._attention import ATTENTION_MASKS as ATTENTION_MASKS
from common.layers._attention import attention_dropout as attention_dropout
from common.layers._attention import attention_variables as attention_variables
from common.layers._attention import attention_weights as attention_weights
from common.layers._attention import multihead_attention as multihead_attention
from common.layers._batch_norm import (
    BATCH_NORM_DIALECTS as BATCH_NORM_DIALECTS,
)
from common.layers._batch_norm import MASKED_DIALECTS as MASKED_DIALECTS
from common.layers._batch_norm import BatchNormDialect as BatchNormDialect
from common.layers._batch_norm import batch_norm as batch_norm
from common.layers._batch_norm import (
    batch_norm_variables as batch_norm_variables,
)
from common.layers._convolution import PaddingMode as PaddingMode
from common.layers._convolution import conv as conv
from common.layers._convolution import conv_transpose as conv_transpose
from common.layers._convolution import (
    conv_transpose_variables as conv_transpose_variables,
)
from common.layers._convolution import conv_variables as conv_variables
from common.layers._embedding import attend as attend
from common.layers._embedding import embedding as embedding
from common.layers._embedding import embedding_variables as embedding_variables
from common.layers._layer import Layer as Layer
from common.layers._layer import named as named
from common.layers._layer import stateful as stateful
from common.layers._layer import within as within
from common.layers._linear import Size as Size
from common.layers._linear import einsum as einsum
from common.layers._linear import linear as linear
from common.layers._linear import linear_general as linear_general
from common.layers._linear import linear_variables as linear_variables
from common.layers._lora import lora as lora
from common.layers._lora import lora_variables as lora_variables
from common.layers._normalization import group_norm as group_norm
from common.layers._normalization import instance_norm as instance_norm
from common.layers._normalization import layer_norm as layer_norm
from common.layers._normalization import rms_norm as rms_norm
from common.layers._pooling import adaptive_avg_pool as adaptive_avg_pool
from common.layers._pooling import adaptive_max_pool as adaptive_max_pool
from common.layers._pooling import adaptive_pool as adaptive_pool
from common.layers._pooling import avg_pool as avg_pool
from common.layers._pooling import flatten as flatten
from common.layers._pooling import max_pool as max_pool
from common.layers._pooling import min_pool as min_pool
from common.layers._pooling import pool as pool
from common.layers._pooling import require_blocks as require_blocks
from common.layers._recurrent import bidirectional as bidirectional
from common.layers._recurrent import rnn as rnn
from common.layers._recurrent_cell import Cell as Cell
from common.layers._recurrent_cell import cell_variables as cell_variables
from common.layers._recurrent_cell import gru_cell as gru_cell
from common.layers._recurrent_cell import lstm_cell as lstm_cell
from common.layers._recurrent_cell import simple_cell as simple_cell
from common.layers._regularization import dropout as dropout
from common.layers._regularization import (
    dropout_per_example as dropout_per_example,
)
from common.layers._reparametrization import power_iteration as power_iteration
from common.layers._reparametrization import settle as settle
from common.layers._reparametrization import spectral_linear as spectral_linear
from common.layers._reparametrization import spectral_norm as spectral_norm
from common.layers._reparametrization import (
    spectral_norm_variables as spectral_norm_variables,
)
from common.layers._reparametrization import weight_norm as weight_norm
from common.layers._reparametrization import (
    weight_norm_variables as weight_norm_variables,
)
from common.layers._rotary import rotary_embedding as rotary_embedding
from common.layers._window import Padding as Padding
from common.layers._window import ceil_padding as ceil_padding
from common.layers._window import explicit_padding as explicit_padding
