"""The losses and metrics that have a name."""

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
    """Computes the fraction of examples whose largest logit is the label."""
    return jnp.mean(jnp.argmax(logits, -1) == labels, dtype=logits.dtype)


LOSSES: dict[str, Loss] = {"mse": mse, "cross_entropy": cross_entropy}
METRICS: dict[str, Loss] = {"accuracy": accuracy, **LOSSES}


def find_loss(loss: str | Loss) -> Loss:
    """Returns the loss of a name, or a callable unchanged.

    Raises:
        ValueError: if no loss has this name.
    """
    return _find("loss", loss, LOSSES)


def find_metrics(
    metrics: str | Iterable[str] | Mapping[str, str | Loss],
) -> dict[str, Loss]:
    """Returns a dict of metrics by name.

    Args:
        metrics: a name, several names, or a dict from names to callables or
            names.

    Raises:
        ValueError: if no metric has one of the names, or if a metric is named
            "loss".
    """
    if isinstance(metrics, str):
        metrics = (metrics,)
    if not isinstance(metrics, Mapping):
        metrics = {name: _find_named(name, METRICS) for name in metrics}
    if "loss" in metrics:
        raise ValueError(
            "metric name: got 'loss', expected another name, because the "
            "loss itself is reported as 'loss'. Leave it out, or call the "
            "metric otherwise, such as 'error'."
        )
    return {k: _find("metric", x, METRICS) for k, x in metrics.items()}


def name_of(function: Loss | None) -> str | None:
    """Returns the name of a loss or metric of this module.

    Another function has no name, even if it was defined with the same one.
    """
    return next((n for n, f in METRICS.items() if f is function), None)


def _find(what: str, loss: Any, known: Mapping[str, Loss]) -> Loss:
    if isinstance(loss, str) and loss in known:
        return known[loss]
    if not callable(loss):
        raise choose(what, loss, known)
    return cast(Loss, loss)


def _find_named(name: Any, known: Mapping[str, Loss]) -> Loss:
    if not isinstance(name, str) or name not in known:
        raise choose("metric", name, known)
    return known[name]
