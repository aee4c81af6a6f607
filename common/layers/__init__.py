"""What each layer means: its variables, and its function in plain JAX.

These functions are what specs compose and what both libraries are judged by,
so they use `jax.numpy` and `jax.lax` primitives only and are themselves
checked against NumPy in float64. Arrays are canonical: parameters in
PyTorch's axis order, batches channels-last. A class is a row of the layer
table, `common.layers.table.LAYERS`.
"""

from common.layers._activation import relu as relu
from common.layers._batch_norm import (
    BATCH_NORM_DIALECTS as BATCH_NORM_DIALECTS,
)
from common.layers._batch_norm import BatchNormDialect as BatchNormDialect
from common.layers._batch_norm import batch_norm as batch_norm
from common.layers._batch_norm import (
    batch_norm_variables as batch_norm_variables,
)
from common.layers._convolution import conv2d as conv2d
from common.layers._convolution import conv_variables as conv_variables
from common.layers._layer import Layer as Layer
from common.layers._layer import named as named
from common.layers._layer import stateful as stateful
from common.layers._layer import within as within
from common.layers._linear import linear as linear
from common.layers._linear import linear_variables as linear_variables
from common.layers._pooling import flatten as flatten
from common.layers._pooling import max_pool2d as max_pool2d
from common.layers._regularisation import dropout as dropout
from common.layers._reparametrisation import power_iteration as power_iteration
from common.layers._reparametrisation import settle as settle
from common.layers._reparametrisation import spectral_linear as spectral_linear
from common.layers._reparametrisation import spectral_norm as spectral_norm
from common.layers._reparametrisation import (
    spectral_norm_variables as spectral_norm_variables,
)
