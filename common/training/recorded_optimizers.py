"""Makes an optimizer again from what a file records of it."""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import optax

from common.training.identity import describe

MAKERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adabelief": optax.adabelief,
    "adadelta": optax.adadelta,
    "adagrad": optax.adagrad,
    "adam": optax.adam,
    "adamax": optax.adamax,
    "adamaxw": optax.adamaxw,
    "adamw": optax.adamw,
    "adan": optax.adan,
    "amsgrad": optax.amsgrad,
    "lamb": optax.lamb,
    "lars": optax.lars,
    "lion": optax.lion,
    "nadam": optax.nadam,
    "nadamw": optax.nadamw,
    "novograd": optax.novograd,
    "optimistic_gradient_descent": optax.optimistic_gradient_descent,
    "radam": optax.radam,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
    "sign_sgd": optax.sign_sgd,
    "sm3": optax.sm3,
    "yogi": optax.yogi,
}
"""The optimizers of optax that need no argument but a learning rate."""

NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
LONGEST = 10_000
"""Longer texts than any of these optimizers has are not searched."""


class Named(NamedTuple):
    """An optimizer of optax that was made with a learning rate only.

    Attributes:
        name: a key of `MAKERS`.
        rate: the learning rate.
        optimizer: the optimizer.
    """

    name: str
    rate: float
    optimizer: optax.GradientTransformation


def find_optimizer(
    text: str, default: optax.GradientTransformation | None = None
) -> Any:
    """Returns the optimizer that `identity.describe` describes so.

    Found are the default, and every optimizer of optax that was made with a
    learning rate and no other argument. Its text must be equal, so that no
    other setting can differ.

    Args:
        text: the `optimizer` in the header of a file.
        default: the default optimizer of the model.

    Returns:
        The optimizer, or `None` if there is no such one.
    """
    if default is not None and describe(default) == text:
        return default
    found = find_named(text)
    return None if found is None else found.optimizer


def find_named(text: str) -> Named | None:
    """Returns the name and the learning rate of a described optimizer.

    Args:
        text: what `identity.describe` returned.

    Returns:
        The first of `MAKERS` that makes it, or `None` if there is none.
    """
    if len(text) > LONGEST:
        return None
    found = (x for x in _candidates(text) if describe(x.optimizer) == text)
    return next(found, None)


def _candidates(text: str) -> Iterator[Named]:
    rates = sorted({float(x) for x in NUMBER.findall(text)})
    for name, make in MAKERS.items():
        for rate in rates:
            try:
                yield Named(name, rate, make(rate))
            except ValueError:  # a rate that this optimizer does not take
                continue
