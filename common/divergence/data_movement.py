"""Evaluates data-movement primitives with NumPy, to avoid compiling them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = Mapping[str, Any]


def move_data(primitive: str, params: Params, operands: Sequence[Any]) -> Any:
    """Evaluates a data-movement primitive.

    Args:
        primitive: the name of the primitive.
        params: the parameters of the equation.
        operands: the arrays that it is applied to.

    Returns:
        The result, or `None` if the primitive has to be evaluated by JAX.
    """
    function = MOVES.get(primitive)
    if function is None or params.get("sharding") is not None:
        return None
    for x in operands:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return None
    return function(params, *map(np.asarray, operands))


def _broadcast(params: Params, x: np.ndarray) -> np.ndarray:
    axes = params["broadcast_dimensions"]
    shape = [1] * len(params["shape"])
    for axis, n in zip(axes, x.shape, strict=True):
        shape[axis] = n
    return np.broadcast_to(x.reshape(shape), params["shape"])


def _slice(params: Params, x: np.ndarray) -> np.ndarray:
    steps = params["strides"] or (1,) * x.ndim
    bounds = zip(
        params["start_indices"], params["limit_indices"], steps, strict=True
    )
    return x[tuple(slice(*bound) for bound in bounds)]


def _reshape(params: Params, x: np.ndarray) -> np.ndarray:
    order = params["dimensions"]
    return (x if order is None else x.transpose(order)).reshape(
        params["new_sizes"]
    )


MOVES: dict[str, Callable[..., np.ndarray]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda p, *xs: np.concatenate(xs, p["dimension"]),
    "reshape": _reshape,
    "rev": lambda p, x: np.flip(x, p["dimensions"]),
    "slice": _slice,
    "squeeze": lambda p, x: np.squeeze(x, tuple(p["dimensions"])),
    "stop_gradient": lambda p, x: x,
    "transpose": lambda p, x: np.transpose(x, p["permutation"]),
}
