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
    "stale": "number of buffers that training did not change",
    "trajectory": "loss of every step",
    "parameters": "parameters and buffers after every step",
    "moments": "optimizer state after every step",
    "eval": "predictions after the last step",
    "overwritten": "number of arrays that inference changed",
}
MODEL_QUANTITIES = {
    "state": "arrays of the right, and those of the left carried to it",
    "forward": "outputs in inference mode",
    "training": "outputs in training mode",
    "loss": QUANTITIES["loss"],
    "buffers": QUANTITIES["buffers"],
    "gradients": QUANTITIES["gradients"],
    "update": QUANTITIES["update"],
    "stale": QUANTITIES["stale"],
    "trajectory": QUANTITIES["trajectory"],
    "parameters": QUANTITIES["parameters"],
    "moments": QUANTITIES["moments"],
    "eval": "outputs in inference mode after the last step",
    "overwritten": QUANTITIES["overwritten"],
}
"""The quantities of models without a trainer, in the order of proof."""
MIXED_QUANTITIES = {
    "precision": "number of operations in another dtype than they should be",
}
"""The quantities that only mixed precision has; they follow the state."""
ORDER = ("state", *MIXED_QUANTITIES, *list(MODEL_QUANTITIES)[1:])
"""The names of all quantities in the order of proof."""
COUNTS = frozenset({"stale", "overwritten", *MIXED_QUANTITIES})
"""The quantities that are a number of arrays or operations and must be 0."""


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
        dtype: the dtype of the comparison; `""` for that of the report.
    """

    quantity: str
    left: str
    right: str
    worst: Place
    tolerance: float
    first: Place | None
    dtype: str = ""

    @property
    def ok(self) -> bool:
        """Whether the pair agrees on this quantity."""
        return self.first is None


class Location(NamedTuple):
    """Where in their sources two models first diverge.

    Attributes:
        layer: the path of the layer, of the left model if it has one.
        lines: the source lines of the left and of the right, as
            `file:line function`; `""` if one is not known.
        hint: what the difference looks like, or `""`.
        details: what `diff` found, in full.
    """

    layer: str = ""
    lines: tuple[str, str] = ("", "")
    hint: str = ""
    details: str = ""


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
        dtype: the dtype of the comparison, if the report has several.
        location: where in the sources it is, if that was looked for.
    """

    quantity: str
    step: int
    leaf: str
    error: float
    left: str
    right: str
    dtype: str = ""
    location: Location = Location()

    @property
    def array(self) -> str:
        """The name of the array, which is `leaf`."""
        return self.leaf

    @property
    def layer(self) -> str:
        """The path of the layer, or of the array if no layer is known."""
        return self.location.layer or self.leaf.rpartition(".")[0]

    @property
    def lines(self) -> tuple[str, str]:
        """The source lines of the left and of the right, if known."""
        return self.location.lines

    @property
    def hint(self) -> str:
        """What the difference looks like, or `""`."""
        return self.location.hint

    def describe(self) -> list[str]:
        """Returns lines with the source lines and the hint, if known."""
        width = max(len(self.left), len(self.right))
        lines = [
            f"  {name:<{width}}  {line}"
            for name, line in zip(
                (self.left, self.right), self.lines, strict=True
            )
            if line
        ]
        if self.location.layer:
            lines.insert(0, f"  in the layer {self.location.layer}")
        return lines + ([f"  hint: {self.hint}"] if self.hint else [])

    def __str__(self) -> str:
        leaf = f", {self.leaf}" if self.leaf else ""
        dtype = f", {self.dtype}" if self.dtype else ""
        place = f"{self.quantity} (step {self.step}{leaf}{dtype})"
        if self.quantity in MIXED_QUANTITIES:
            return (
                f"{place}: {self.error:.0f} operations of {self.left} or "
                f"{self.right} are not in the dtype of mixed precision"
            )
        if self.quantity in COUNTS:
            what = f"{self.error:.0f} arrays of {self.left} or {self.right}"
            verb = (
                "were not changed by training"
                if self.quantity == "stale"
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
        if self.quantity == "state" and not self.dtype:
            text += ". Call `right.load(left.state())` to start from one State"
        return text


def ulps(error: float, dtype: str) -> float:
    """Returns a relative error in units in the last place (ULPs).

    Args:
        error: the relative error.
        dtype: a key of `agreement.TOLERANCES`. In mixed precision, the units
            are those of the compute dtype.
    """
    return error / EPS[dtype.rpartition("/")[2]]
