"""The arguments by which a model's `__call__` is told what to do."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

TRAINING = ("train", "training", "is_training")
INFERENCE = ("inference", "deterministic", "use_running_average", "eval")


def parameters_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Returns the parameters of a function, or none if it has no signature."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def mode_arguments(
    function: Callable[..., Any], training: bool
) -> dict[str, bool]:
    """Returns the keyword arguments that choose training or inference.

    Args:
        function: a model, or its `__call__`.
        training: whether the call is one of training.
    """
    names = parameters_of(function)
    return {name: training for name in TRAINING if name in names} | {
        name: not training for name in INFERENCE if name in names
    }
