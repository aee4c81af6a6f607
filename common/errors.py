"""The errors of this project: `<what>: got <a>, expected <b>. <fix>`."""

from collections.abc import Iterable
from typing import Any

import numpy as np


class BatchError(ValueError):
    """A batch that the model cannot take."""


class StateError(ValueError):
    """A State that does not fit the trainer it is loaded into."""


class HyperParameterError(TypeError):
    """A hyper-parameter that a spec does not have."""


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
    """The library behind a backend is missing."""


class ModelNotFoundError(ImportError):
    """A backend has no model class for a spec."""


def choose(what: str, got: Any, choices: Iterable[Any]) -> ValueError:
    """Makes the error for a name that is not among the known ones."""
    known = ", ".join(repr(choice) for choice in choices)
    return ValueError(
        f"{what}: got {got!r}, expected one of {known}. Pick one of these."
    )
