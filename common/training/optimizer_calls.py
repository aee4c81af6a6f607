"""Calls an optax optimizer with the extra arguments that it accepts."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

ARGUMENTS = (
    ("value", "grad", "value_fn"),
    ("value", "grad", "value_fn", "obj_fn"),
    ("grad_fn",),
)
"""Extra arguments of `update`, in the combinations that are tried in turn.

Most of optax accepts and ignores the first. `sophia` requires `obj_fn`, which
the line searches reject, and `sam` accepts `grad_fn` only.
"""


def functions_of(value_fn: Callable[[Any], Any]) -> dict[str, Any]:
    """Returns the arguments of `update` that are functions of the loss."""

    def grad_fn(params, step=None):
        del step  # of an inner loop; all of its steps are on the same batch
        return jax.grad(value_fn)(params)

    return {"value_fn": value_fn, "obj_fn": value_fn, "grad_fn": grad_fn}


def accepted_arguments(
    optimizer: optax.GradientTransformationExtraArgs, params: Mapping[str, Any]
) -> tuple[str, ...]:
    """Returns the names of the extra arguments that an optimizer accepts.

    The signature cannot be used, because a chain accepts any argument.
    Instead, the optimizer is traced with each combination in turn.

    Args:
        optimizer: accepts extra arguments.
        params: by canonical name; only shapes and dtypes are used.

    Raises:
        ValueError: if the optimizer cannot be traced with any of them.
    """
    errors: list[Exception] = []
    for arguments in ARGUMENTS:
        try:
            updates, _ = jax.eval_shape(
                with_arguments(optimizer, arguments),
                *operands_of(optimizer, params),
            )
        except Exception as error:  # an optimizer may raise anything
            errors.append(error)
        else:
            _require_shapes(updates, params)
            return arguments
    raise ValueError(
        f"optimizer: got {type(errors[0]).__name__} ({errors[0]}) from its "
        "`init` or `update`, expected it to accept gradients, state and "
        "parameters as flat dicts by canonical name, and the extra arguments "
        "`value`, `grad` and `value_fn`. Masks and labels must be functions "
        "of such a dict."
    ) from errors[0]


def _require_shapes(
    updates: Mapping[str, Any], params: Mapping[str, Any]
) -> None:
    for name, x in params.items():
        if updates[name].shape != x.shape:
            raise ValueError(
                f"optimizer update of {name!r}: got shape "
                f"{updates[name].shape}, expected {x.shape}. The optimizer "
                "receives one gradient for the whole batch; use one that "
                "does not expect a gradient for each example."
            )


def operands_of(
    optimizer: optax.GradientTransformationExtraArgs, params: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Returns shapes of the gradients, state, parameters and loss."""
    dtype = jnp.result_type(*jax.tree.leaves(params))
    state = jax.eval_shape(optimizer.init, params)
    return params, state, params, jax.ShapeDtypeStruct((), dtype)


def with_arguments(
    optimizer: optax.GradientTransformationExtraArgs,
    arguments: tuple[str, ...],
) -> Callable[..., Any]:
    """Returns `update` as a function of arrays alone."""

    def value_fn(params):
        # Stands in for the loss, which depends on all parameters, but not on
        # the order of their axes.
        return sum(jnp.sum(x * x) for x in jax.tree.leaves(params))

    def update(updates, state, params, value):
        found = {"value": value, "grad": updates, **functions_of(value_fn)}
        return optimizer.update(
            updates, state, params, **{k: found[k] for k in arguments}
        )

    return update
