"""How an Equinox model is called on a batch."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from common import part_keys
from common.native.modes import mode_arguments, parameters_of


def call(
    native: Any, xs: Any, *, training: bool, key: Any = None
) -> tuple[Any, Any]:
    """Calls a model on each example of a batch, as Equinox's examples do.

    The model is vectorized with `jax.vmap`, under the axis name that its
    layers expect. A model with state is called as `model(x, state)`, and one
    whose `__call__` has a parameter `key` gets a key for each example.

    Args:
        native: a model, or a pair of a model and its `eqx.nn.State`.
        xs: the batch: a pytree of arrays with a leading batch axis.
        training: whether to call the model in training mode.
        key: a random key, if the model uses one.

    Returns:
        The outputs of the batch, and the model or pair with its new state.
    """
    model, state = native if is_pair(native) else (native, None)
    callee = eqx.nn.inference_mode(model, value=not training)
    options = mode_arguments(callee, training)
    names = parameters_of(callee)
    keys = None
    if key is not None and "key" in names:
        keys = part_keys.split_over_examples(
            key, jnp.shape(jax.tree.leaves(xs)[0])[0]
        )
    positional = names.get("key") is not None and (
        names["key"].kind is not names["key"].KEYWORD_ONLY
    )

    def one(x, state, key):
        extra = () if state is None else (state,)
        if "key" in names and (key is not None or positional):
            return callee(x, *extra, key=key, **options)
        return callee(x, *extra, **options)

    outputs = jax.vmap(
        one,
        axis_name=axis_name(model),
        in_axes=(0, None, None if keys is None else 0),
        out_axes=0 if state is None else (0, None),
    )(xs, state, keys)
    if state is None:
        return outputs, native
    outputs, state = outputs
    # `jax.checkpoint` returns a constant of the state as a Python number.
    return outputs, (model, jax.tree.map(jnp.asarray, state))


def is_pair(native: Any) -> bool:
    """Tells a pair of a model and its state from a model."""
    return (
        isinstance(native, tuple)
        and len(native) == 2
        and isinstance(native[1], eqx.nn.State)
    )


def with_state(native: Any, result: Any) -> Any:
    """Returns the native object after a call.

    Args:
        native: as it was before the call.
        result: what a call returned: a new state, a model, or a pair.
    """
    if isinstance(result, eqx.nn.State):
        return native[0], result
    return native if result is None else result


def copy(native: Any) -> Any:
    """Returns the native object, which nothing can change in place."""
    return native


def model_of(native: Any) -> Any:
    """Returns the model of a pair of a model and its state, or the model."""
    return native[0] if is_pair(native) else native


def axis_name(model: Any) -> Any:
    """Returns the name of the batch axis that the model's layers expect."""
    nodes = jax.tree.leaves(
        model, is_leaf=lambda x: isinstance(x, eqx.Module) and x is not model
    )
    for node in nodes:
        if not isinstance(node, eqx.Module):
            continue
        found = getattr(node, "axis_name", None) or axis_name(node)
        if found is not None:
            return found
    return getattr(model, "axis_name", None)
