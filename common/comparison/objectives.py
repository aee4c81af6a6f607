"""The loss that models without a trainer are compared with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from common.protocol import Loss
from common.training import losses

SEED = 0


def find_objective(loss: str | Loss | None, ys: Any) -> tuple[Loss, str]:
    """Returns a loss of outputs and targets, and its description.

    Args:
        loss: the user's loss, the name of one, or `None`.
        ys: the targets, or `None`.

    Raises:
        ValueError: if no loss has the name, or if it needs targets.
    """
    if isinstance(loss, str) and ys is None:
        raise ValueError(
            f"ys: got None and the loss {loss!r}, expected targets. Pass "
            "`ys`, or leave `loss` out."
        )
    if loss is not None:
        name = loss if isinstance(loss, str) else _name(loss)
        return losses.find_loss(loss), name
    if ys is None:
        return projection, "a random projection of the outputs"
    if _are_labels(ys):
        return cross_entropy, "the mean cross-entropy"
    return mean_squared_error, "the mean squared error"


def projection(outputs: Any, ys: Any) -> Any:
    """Computes a sum of all floating outputs with fixed random weights."""
    del ys
    rng = np.random.default_rng(SEED)
    total = jnp.zeros(())
    for x in map(jnp.asarray, jax.tree.leaves(outputs)):
        weights = rng.normal(size=x.shape) / np.sqrt(max(x.size, 1))
        if jnp.issubdtype(x.dtype, jnp.inexact):
            x = jnp.real(x)
            total += jnp.sum(x * jnp.asarray(weights, x.dtype))
    return total


def mean_squared_error(outputs: Any, ys: Any) -> Any:
    """Computes the mean squared error, added over the leaves."""
    return sum(jnp.mean((x - y) ** 2) for x, y in _pairs(outputs, ys))


def cross_entropy(outputs: Any, ys: Any) -> Any:
    """Computes the mean cross-entropy, added over the leaves."""
    return sum(
        jnp.mean(optax.softmax_cross_entropy_with_integer_labels(x, y))
        for x, y in _pairs(outputs, ys)
    )


def _pairs(outputs: Any, ys: Any) -> list[tuple[Any, Any]]:
    leaves, targets = jax.tree.leaves(outputs), jax.tree.leaves(ys)
    if len(leaves) != len(targets):
        raise ValueError(
            f"ys: got {len(targets)} arrays, expected {len(leaves)}, one for "
            "each output. Pass `loss`, a function of the outputs and `ys`."
        )
    return list(zip(leaves, targets, strict=True))


def _are_labels(ys: Any) -> bool:
    dtypes = [jnp.asarray(y).dtype for y in jax.tree.leaves(ys)]
    return all(jnp.issubdtype(dtype, jnp.integer) for dtype in dtypes)


def _name(loss: Any) -> str:
    return getattr(loss, "__name__", type(loss).__name__)
