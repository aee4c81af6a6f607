"""The rows of a comparison, and the first divergence among them."""

import dataclasses
import math
from typing import NamedTuple

from common.agreement import EPS

# The order of proof: the first row that fails tells where to look.
QUANTITIES = {
    "state": "the initial State, and the State after a hand-over",
    "forward": "predictions before training",
    "loss": "loss of step 1",
    "buffers": "buffers after step 1",
    "gradients": "gradients of step 1",
    "update": "parameters and optimizer state after step 1",
    "trained": "number of buffers that training did not move",
    "trajectory": "loss of every step",
    "parameters": "parameters and buffers after every step",
    "moments": "optimizer state after every step",
    "eval": "predictions after the last step",
    "kept": "number of arrays that inference changed",
}


COUNTS = frozenset({"trained", "kept"})


class Place(NamedTuple):
    """Where two runs are apart.

    Attributes:
        step: number of training steps taken, 0 before the first.
        leaf: the canonical name of the array, `""` for the loss.
        error: by how much.
    """

    step: int
    leaf: str
    error: float


@dataclasses.dataclass(frozen=True)
class Row:
    """One quantity of one pair.

    Attributes:
        quantity: a key of `QUANTITIES`.
        left: a backend.
        right: the backend it is held against.
        worst: where the difference is largest.
        tolerance: what is allowed there.
        first: the first place beyond its tolerance, if there is one.
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
    """The first difference in the order of proof that is none of rounding.

    Attributes:
        quantity: a key of `QUANTITIES`.
        step: number of training steps taken, 0 before the first.
        leaf: the canonical name of the array, `""` for the loss.
        error: by how much the two are apart.
        left: a backend.
        right: the backend it is held against.
    """

    quantity: str
    step: int
    leaf: str
    error: float
    left: str
    right: str

    def __str__(self) -> str:
        leaf = f", {self.leaf}" if self.leaf else ""
        apart = (
            f"are {self.error:.2g} apart"
            if math.isfinite(self.error)
            else "differ in kind: missing, another dtype or shape, not "
            "finite, or a count or key that must be equal"
        )
        hint = ""
        if self.quantity == "state":
            hint = ". They start apart: `right.load(left.state())` first"
        return (
            f"{self.quantity} (step {self.step}{leaf}): {self.left} and "
            f"{self.right} {apart}{hint}"
        )


def ulps(difference: float, dtype: str) -> float:
    """Returns a relative difference in units in the last place."""
    return difference / EPS[dtype]
