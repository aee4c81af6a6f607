"""Mixed precision in Equinox: the arrays are cast inside the loss.

The gradients flow through the cast to the float32 parameters. Norms keep
theirs: most of them compute in float32 whatever dtype their input has, and
the others are called on a float32 input here.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jax.typing import DTypeLike

from common.training.precision import PARAMETERS, cast, widened
from impl_equinox import layers
from impl_equinox.calling import is_pair, with_state

NORMS = (
    eqx.nn.BatchNorm,
    eqx.nn.GroupNorm,
    eqx.nn.LayerNorm,
    eqx.nn.RMSNorm,
    layers.BatchNorm,
    layers.LayerNorm,
)
"""Layers whose parameters stay in float32."""
REPARAMETRIZED = (eqx.nn.SpectralNorm, eqx.nn.WeightNorm)
"""Layers that compute the weight of another one, in float32."""


def narrow(model: Any, dtype: DTypeLike | None) -> Any:
    """Casts a model to a compute dtype, except for its norms.

    A norm returns the dtype of its input. A weight that is normalized is cast
    where it is used.

    Args:
        model: a model with float32 parameters.
        dtype: the compute dtype, or `None` for the model as it is.
    """
    if dtype is None:
        return model

    def one(node):
        if isinstance(node, eqx.nn.BatchNorm):
            return _like(_in_float32(type(node)), node)
        if isinstance(node, NORMS):
            return node
        if isinstance(node, REPARAMETRIZED):
            layer = _like(_in_dtype_of_input(type(node.layer)), node.layer)
            return eqx.tree_at(lambda node: node.layer, node, layer)
        return cast(node, dtype) if eqx.is_array(node) else node

    return jax.tree.map(
        one, model, is_leaf=lambda x: isinstance(x, NORMS + REPARAMETRIZED)
    )


def narrowed(
    call: Callable[..., tuple[Any, Any]], dtype: str
) -> Callable[..., tuple[Any, Any]]:
    """Returns a call of a user's model that computes in a narrower dtype.

    Args:
        call: calls a model, or a pair of a model and its state, on a batch.
        dtype: the compute dtype.
    """

    def narrow_call(native, xs, *, training, key=None):
        model, *state = native if is_pair(native) else (native,)
        model = narrow(model, dtype)
        given = (model, *state) if state else model
        outputs, result = call(
            given, cast(xs, dtype), training=training, key=key
        )
        after = _restored(native, given, with_state(given, result))
        return widened(outputs, dtype), after

    return narrow_call


def _restored(before: Any, given: Any, after: Any) -> Any:
    """Returns a native object after a call, in the dtypes it had before.

    Arrays that the call did not change are those from before, unrounded.
    """
    leaves, treedef = jax.tree.flatten(before)
    new = jax.tree.leaves(after)
    if len(new) != len(leaves):
        return after  # an error of the caller, who is told of it
    return jax.tree.unflatten(
        treedef,
        [
            x if not eqx.is_array(x) or z is y else z.astype(x.dtype)
            for x, y, z in zip(
                leaves, jax.tree.leaves(given), new, strict=True
            )
        ],
    )


def _like(kind: type, node: Any) -> Any:
    """Returns an instance of a subclass with the attributes of a module."""
    new = object.__new__(kind)
    for field in dataclasses.fields(node):
        object.__setattr__(new, field.name, getattr(node, field.name))
    return new


@functools.cache
def _in_float32(kind: Any) -> type:
    """Returns a subclass of a batch norm that computes in float32."""

    class InFloat32(kind):
        def __call__(self, x, *args, **kwargs):
            y, state = super().__call__(cast(x, PARAMETERS), *args, **kwargs)
            return y.astype(x.dtype), state

    return InFloat32


@functools.cache
def _in_dtype_of_input(kind: Any) -> type:
    """Returns a subclass of a layer that casts its arrays at each call."""

    class InDtypeOfInput(kind):
        def __call__(self, x, *args, **kwargs):
            layer = narrow(_like(kind, self), x.dtype)
            return layer(x, *args, **kwargs)

    return InDtypeOfInput
