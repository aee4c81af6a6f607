"""The losses and metrics that go by a name."""

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
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise choose("loss", loss, LOSSES)
    return LOSSES[loss]


def find_metrics(metrics: tuple[str, ...] | dict[str, Loss]) -> dict:
    """Returns metrics by name, from names or from a dict of callables.

    Raises:
        ValueError: if there is no metric of one of the names.
    """
    if isinstance(metrics, dict):
        return dict(metrics)
    for name in metrics:
        if name not in METRICS:
            raise choose("metric", name, METRICS)
    return {name: METRICS[name] for name in metrics}
