"""The rows of a comparison, and its first divergence."""

import dataclasses
import math
from typing import NamedTuple

from common.agreement import EPS

# The order of proof: each row depends on those above it, so the first row that
# fails shows where to look.
QUANTITIES = {
    "state": "the initial State, and the State after copying",
    "forward": "predictions before training",
    "loss": "loss of step 1",
    "buffers": "buffers after step 1",
    "gradients": "gradients of step 1",
    "update": "parameters and optimizer state after step 1",
    "trained": "number of buffers that training did not change",
    "trajectory": "loss of every step",
    "parameters": "parameters and buffers after every step",
    "moments": "optimizer state after every step",
    "eval": "predictions after the last step",
    "kept": "number of arrays that inference changed",
}
COUNTS = frozenset({"trained", "kept"})
"""The quantities that are a number of arrays and must be 0."""


class Place(NamedTuple):
    """An array at a step, and its error.

    Attributes:
        step: the number of training steps taken.
        leaf: the canonical name of the array, or `""` for the loss.
        error: the relative error, or the number of arrays for a quantity
            that is a count.
    """

    step: int
    leaf: str
    error: float


@dataclasses.dataclass(frozen=True)
class Row:
    """The result for one quantity of one pair of backends.

    Attributes:
        quantity: a key of `QUANTITIES`.
        left: the name of one backend.
        right: the name of the other backend.
        worst: the place with the largest error relative to its tolerance.
        tolerance: the tolerance at that place.
        first: the first place whose error exceeds its tolerance, if any.
    """

    quantity: str
    left: str
    right: str
    worst: Place
    tolerance: float
    first: Place | None

    @property
    def ok(self) -> bool:
        """Whether the pair agrees on this quantity."""
        return self.first is None


class Divergence(NamedTuple):
    """The first place where two backends differ by more than rounding.

    Attributes:
        quantity: a key of `QUANTITIES`.
        step: the number of training steps taken.
        leaf: the canonical name of the array, or `""` for the loss.
        error: the relative error. It is infinite for arrays that cannot be
            compared, or that must be equal and are not.
        left: the name of one backend.
        right: the name of the other backend.
    """

    quantity: str
    step: int
    leaf: str
    error: float
    left: str
    right: str

    def __str__(self) -> str:
        leaf = f", {self.leaf}" if self.leaf else ""
        place = f"{self.quantity} (step {self.step}{leaf})"
        if self.quantity in COUNTS:
            what = f"{self.error:.0f} arrays of {self.left} or {self.right}"
            verb = (
                "were not changed by training"
                if self.quantity == "trained"
                else "were changed by inference"
            )
            return f"{place}: {what} {verb}"
        if math.isfinite(self.error):
            text = (
                f"{place}: the relative error between {self.left} and "
                f"{self.right} is {self.error:.2g}"
            )
        else:
            text = (
                f"{place}: {self.left} and {self.right} differ in a name, "
                "shape or dtype, or in values that must be equal or finite"
            )
        if self.quantity == "state":
            text += ". Call `right.load(left.state())` to start from one State"
        return text


def ulps(error: float, dtype: str) -> float:
    """Returns a relative error in units in the last place (ULPs)."""
    return error / EPS[dtype]
