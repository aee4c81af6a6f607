"""The losses and metrics that go by a name."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from common.errors import choose
from common.protocol import Loss


def mse(
    predictions: Float[Array, "*S"], targets: Float[Array, "*S"]
) -> Float[Array, ""]:
    """Computes the mean squared error over all elements."""
    return jnp.mean((predictions - targets) ** 2)


def cross_entropy(
    logits: Float[Array, "B K"], labels: Int[Array, " B"]
) -> Float[Array, ""]:
    """Computes the mean cross-entropy in nats per example."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses)


def accuracy(
    logits: Float[Array, "B K"], labels: Int[Array, " B"]
) -> Float[Array, ""]:
    """Computes the share of examples whose largest logit is the label."""
    return jnp.mean(jnp.argmax(logits, -1) == labels, dtype=logits.dtype)


LOSSES: dict[str, Loss] = {"mse": mse, "cross_entropy": cross_entropy}
METRICS: dict[str, Loss] = {"accuracy": accuracy, **LOSSES}


def find_loss(loss: str | Loss) -> Loss:
    """Returns a loss by name, or the callable itself.

    Raises:
        ValueError: if there is no loss of that name.
    """
    return _find("loss", loss, LOSSES)


def find_metrics(
    metrics: str | Iterable[str] | Mapping[str, str | Loss],
) -> dict[str, Loss]:
    """Returns metrics by name.

    Args:
        metrics: a name, names, or a dict of names and callables.

    Raises:
        ValueError: if there is no metric of one of the names, or if one is
            to be called "loss".
    """
    if isinstance(metrics, str):
        metrics = (metrics,)
    if not isinstance(metrics, Mapping):
        metrics = {
            name: _find("metric", name, METRICS, named=True)
            for name in metrics
        }
    if "loss" in metrics:
        raise ValueError(
            "metric name: got 'loss', expected another: the loss itself goes "
            "by it. Rename the metric."
        )
    return {k: _find("metric", x, METRICS) for k, x in metrics.items()}


def _find(
    what: str, it: Any, known: Mapping[str, Loss], *, named: bool = False
) -> Loss:
    if isinstance(it, str) and it in known:
        return known[it]
    if named or not callable(it):
        raise choose(what, it, known)
    return cast(Loss, it)
