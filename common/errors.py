"""Exceptions whose messages read `<what>: got <a>, expected <b>. <fix>`."""

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np


class BatchError(ValueError):
    """A batch does not fit the inputs or targets of the model."""


class StateError(ValueError):
    """A State does not fit the trainer that loads it."""


class HyperParameterError(TypeError):
    """A spec does not have the given hyper-parameter."""


class NonFiniteLossError(FloatingPointError):
    """Training produced a NaN or an infinity.

    The trainer holds the state after the step before.

    Attributes:
        step: the number of the step that failed, counted from 1.
        losses: the losses of the steps that `fit` took before that step.
    """

    def __init__(self, step: int, what: str, losses: np.ndarray):
        self.step = step
        self.losses = losses
        super().__init__(
            f"step {step}: got {what}, expected finite values. The trainer "
            f"holds the state after step {step - 1}; lower the learning rate "
            "or look at the data of this step."
        )


class Interrupted(KeyboardInterrupt):
    """Control-C stopped `fit` between two chunks of steps.

    The trainer holds the state after the last step that was taken, so another
    call of `fit` continues the run.

    Attributes:
        losses: the losses of the steps that `fit` took.
    """

    def __init__(self, losses: np.ndarray):
        self.losses = losses
        super().__init__(
            f"fit: interrupted after {len(losses)} steps. Call `fit` again "
            "to continue from there."
        )


class BackendNotInstalledError(ImportError):
    """The library of a backend is not installed."""


class ModelNotFoundError(ImportError):
    """A backend has no model class for a spec."""


# At this ratio a typing error in a short name is found, and `"float16"` is not
# taken for a misspelled `"float64"`.
SIMILAR = 0.9


def choose(
    what: str, got: Any, choices: Iterable[Any], fix: str | None = None
) -> ValueError:
    """Returns the error for a value that is not one of the valid ones.

    Args:
        what: the name of the value.
        got: the invalid value.
        choices: the valid values; at least one.
        fix: what the user can do about it. By default the message suggests
            the choice with the most similar spelling, or an example.
    """
    choices = list(choices)
    if fix is None:
        names = {str(choice).lower(): choice for choice in choices}
        similar = difflib.get_close_matches(
            str(got).lower(), names, n=1, cutoff=SIMILAR
        )
        fix = (
            f"Perhaps you meant {names[similar[0]]!r}."
            if similar
            else f"Use one of these values, such as {choices[0]!r}."
        )
    expected = ", ".join(repr(choice) for choice in choices)
    return ValueError(
        f"{what}: got {got!r}, expected one of {expected}. {fix}"
    )
