"""Tells a divergence from the rounding of casts.

Both programs are evaluated in float64 and first compared as if nothing
rounded them. If no earliest difference is a cast, then both round alike, and
all differences are real. Otherwise the programs are compared again with the
tolerance of the narrowest dtype that the values passed through in either of
them. What still differs comes before the casts.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from common.agreement import EPS, widened_tolerance
from common.divergence.record import Node, Record
from common.divergence.result import SIDES, Origin

# Operations that read a constant in another layout.
MOVED_CONSTANTS = {
    "broadcast_in_dim",
    "convert_element_type",
    "dynamic_slice",
    "gather",
    "reshape",
    "slice",
    "squeeze",
    "transpose",
}


@dataclasses.dataclass(frozen=True)
class Tolerances:
    """The largest errors of equal values, without and with their casts.

    Attributes:
        literals: the machine epsilon of the dtype of the literals.
    """

    literals: float

    def strict(self, left: Node, right: Node) -> float:
        """The error of values that casts do not round."""
        del left, right
        return widened_tolerance(0.0, self.literals)

    def of_either(self, left: Node, right: Node) -> float:
        """The error by the casts of either program."""
        return widened_tolerance(max(left.eps, right.eps), self.literals)

    def of_both(self, left: Node, right: Node) -> float:
        """The error by casts that both programs have."""
        return widened_tolerance(min(left.eps, right.eps), self.literals)


def literal_eps(are_wide: Iterable[bool]) -> float:
    """Returns the machine epsilon of the coarser literals."""
    return EPS["float64" if all(are_wide) else "float32"]


def rounded_origins(
    records: Sequence[Record], origins: Sequence[Origin]
) -> list[Origin]:
    """Returns the origins that are casts, with what they round to."""
    found = []
    for origin in origins:
        words = []
        for side, record in zip(SIDES, records, strict=True):
            node = getattr(origin, side)
            cast = node and _cast_of(record, node)
            if cast:
                words.append(f"rounding to {cast.dtype} on the {side}")
        if words:
            found.append(dataclasses.replace(origin, reason="; ".join(words)))
    return found


def casts_to_other_dtypes(origin: Origin) -> bool:
    """Whether both programs cast one value, but to different dtypes."""
    left, right = origin.left, origin.right
    if left is None or right is None:
        return False
    if "constant" in (left.primitive, right.primitive):
        return False
    both_cast = bool(left.rounding and right.rounding)
    return both_cast and left.rounding != right.rounding


def _cast_of(record: Record, node: Node) -> Node | None:
    """Returns the cast, or the rounded constant, that a value comes from."""
    if node.rounding:
        return node
    for number in node.operands:
        operand = record.nodes[number]
        if operand.primitive == "constant" and operand.rounding:
            return operand
        if operand.primitive in MOVED_CONSTANTS:
            found = _cast_of(record, operand)
            if found is not None and found.primitive == "constant":
                return found
    return None
