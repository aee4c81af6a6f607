"""How an NNX module is called on a batch."""

from typing import Any

from flax import nnx

from common.native.modes import mode_arguments, parameters_of


def call(
    module: nnx.Module, xs: Any, *, training: bool, key: Any = None
) -> tuple[Any, nnx.Module]:
    """Calls a module on a batch, as Flax's examples do.

    Args:
        module: called with the whole batch; its Variables are updated in
            place.
        xs: the batch: a pytree of arrays with a leading batch axis.
        training: whether to call the module in training mode.
        key: a random key, for a module whose `__call__` has a parameter
            `rngs`. Other modules use the streams that they hold.

    Returns:
        The outputs of the batch, and the module.
    """
    view = nnx.view(
        module,
        deterministic=not training,
        use_running_average=not training,
        raise_if_not_found=False,
    )
    options: dict[str, Any] = dict(mode_arguments(view, training))
    if key is not None and "rngs" in parameters_of(view):
        options["rngs"] = nnx.Rngs(key)
    return view(xs, **options), module


def with_state(module: nnx.Module, result: Any) -> nnx.Module:
    """Returns the module after a call: what the call returned, if anything."""
    return result if isinstance(result, nnx.Module) else module


def model_of(module: nnx.Module) -> nnx.Module:
    """Returns the module."""
    return module


def copy(module: nnx.Module) -> nnx.Module:
    """Returns a module with the same arrays and Variables of its own."""
    return nnx.clone(module)
