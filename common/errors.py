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
    """Training met a NaN or an infinity.

    Attributes:
        step: the number of the step that went wrong, counted from 1. The
            trainer holds the state after the step before.
        losses: the losses of the steps that `fit` took before that one.
    """

    losses: np.ndarray

    def __init__(self, step: int, what: str):
        self.step = step
        self.losses = np.zeros(0)
        super().__init__(
            f"step {step}: got {what}, expected finite values. The trainer "
            f"holds the state after step {step - 1}; lower the learning rate "
            "or look at the data of this step."
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
