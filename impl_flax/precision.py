"""Mixed precision in Flax NNX: `dtype=` is not the `param_dtype=`.

A layer casts its input and its parameters to its `dtype`. The stock norms do
so as well, with their running statistics too, unless they get another
`promote_dtype`.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from common.training.precision import cast, widened
from impl_flax.layers import keep_dtypes

NORMS = (
    nnx.BatchNorm,
    nnx.GroupNorm,
    nnx.InstanceNorm,
    nnx.LayerNorm,
    nnx.RMSNorm,
)
"""Layers whose parameters and statistics stay in float32."""
REPARAMETRIZED = (nnx.SpectralNorm, nnx.WeightNorm)
"""Layers that write the weight of another one, in float32."""


def takes_dtype(model_class: Callable[..., Any]) -> bool:
    """Returns whether a model class has an argument `dtype`."""
    return "dtype" in inspect.signature(model_class).parameters


def set_dtype(module: nnx.Module, dtype: str) -> None:
    """Sets the `dtype` of all layers of a module that compute in one.

    These are the layers with the attributes `dtype` and `param_dtype`. Norms
    return this dtype, but keep their parameters and statistics in float32.

    Args:
        module: changed in place.
        dtype: the compute dtype.
    """
    layers: Any = nnx.iter_modules(module)
    for _, layer in layers:
        if not (hasattr(layer, "dtype") and hasattr(layer, "param_dtype")):
            continue
        if isinstance(layer, REPARAMETRIZED):
            continue
        layer.dtype = jnp.dtype(dtype)
        if isinstance(layer, NORMS):
            layer.promote_dtype = keep_dtypes


def narrowed(
    call: Callable[..., tuple[Any, Any]], dtype: str
) -> Callable[..., tuple[Any, Any]]:
    """Returns a call of a user's module that computes in a narrower dtype.

    Args:
        call: calls a module on a batch.
        dtype: the compute dtype.
    """

    def narrow_call(module, xs, *, training, key=None):
        # The copy has the same Variables, which a call updates in place.
        module = nnx.clone(module, variables=False)
        set_dtype(module, dtype)
        outputs, result = call(
            module, cast(xs, dtype), training=training, key=key
        )
        return widened(outputs, dtype), module if result is None else result

    return narrow_call
