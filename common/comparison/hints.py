"""Tells what a known difference between two models looks like."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from common import agreement
from common.agreement import EPS
from common.comparison.inspection import Inspection
from common.comparison.relations import (
    MIN_ELEMENTS,
    VARIANCE,
    constant_ratio,
    is_close,
    order,
    ratio_of,
    slope_of,
    to_float,
    variance,
)
from common.divergence import Diff
from common.divergence.matching import find_axis_order
from common.divergence.record import Node, Record

LARGEST_EPS = 1e-2
CUBIC = 0.044715
"""The coefficient of the tanh form of GELU."""
DEPTH = 4
"""How many operations before a divergence are looked at for an eps."""
NEAR = 16
"""How many operations around a divergence are looked at."""
ORIGINS = 3


def of_ceilings(
    inspections: Sequence[Inspection], model_dtype: str, error: float
) -> str:
    """Tells when only one side computes in a narrow dtype.

    Args:
        inspections: of the left and the right.
        model_dtype: the narrowest dtype of the models' parameters.
        error: the relative error that was found.
    """
    left, right = inspections
    if left.eps == right.eps or max(left.eps, right.eps) <= EPS[model_dtype]:
        return ""
    side, narrow = ("left", left) if left.eps > right.eps else ("right", right)
    if not error <= agreement.amplified(narrow.eps):
        return ""
    where = f" at {narrow.cast}" if narrow.cast else ""
    return f"only the {side} casts to {narrow.dtype}{where}"


def of_draws(inspections: Sequence[Inspection]) -> str:
    """Tells when only one side draws random numbers in inference mode.

    Args:
        inspections: of the left and the right, in inference mode.
    """
    left, right = (inspection.draw for inspection in inspections)
    if (left is None) == (right is None):
        return ""
    side, line = ("right", right) if left is None else ("left", left)
    where = f" at {line}" if line else ""
    return f"only the {side} draws random numbers in inference mode{where}"


def of_updates(after: tuple[Any, Any], before: tuple[Any, Any]) -> str:
    """Tells how a training step changed a buffer on both sides."""
    kept = [np.array_equal(x, y) for x, y in zip(after, before, strict=True)]
    for i, side in enumerate(("left", "right")):
        if kept[i] and not kept[1 - i]:
            return f"the {side} does not update it"
    left, right = (to_float(x) for x in after)
    if left.shape != right.shape:
        return ""
    slope = slope_of(left, right)
    found = None if slope is None else variance(slope)
    if found:
        return found
    changes = [
        to_float(x) - to_float(y) for x, y in zip(after, before, strict=True)
    ]
    ratio = ratio_of(*changes)
    if ratio is None:
        return ""
    return f"the left changes {ratio:.6g} times as much: another momentum"


def of_weights(left: Any, right: Any) -> str:
    """Tells how the numbers of two weights are related."""
    left, right = to_float(left), to_float(right)
    if left.size != right.size or not (left.any() and right.any()):
        return ""
    return order(left, right) or constant_ratio(left, right)


def of_arrays(left: Any, right: Any) -> str:
    """Tells how the numbers of two results are related."""
    left, right = to_float(left), to_float(right)
    if left.size != right.size or not left.size:
        return ""
    for side, x, other in (("left", left, right), ("right", right, left)):
        if not x.any() and other.any():
            return (
                f"it is zero on the {side} only, as behind a `stop_gradient`"
            )
    return order(left, right) or constant_ratio(left, right)


def of_diff(found: Diff) -> str:
    """Tells what the operations at a divergence say."""
    sides = [
        [node for o in found.origins[:ORIGINS] if (node := getattr(o, side))]
        for side in ("left", "right")
    ]
    hint = _gelu(found, sides)
    origin = found.origins[0]
    if hint or origin.left is None or origin.right is None:
        return hint
    pair = origin.left, origin.right
    return (
        _literals(found.records, pair)
        or _weight(found.records, pair)
        or _operand_order(found.records, pair)
    )


def best(arrays: str, operations: str, values: str) -> str:
    """Selects one of several hints.

    Args:
        arrays: what the arrays that were compared say.
        operations: what the operations at the divergence say.
        values: what their values say.
    """
    if arrays.startswith(VARIANCE):
        return arrays
    return operations or arrays or values


def of_values(found: Diff) -> str:
    """Tells how the values at a divergence are related."""
    origin = found.origins[0]
    if origin.left is None or origin.right is None:
        return ""
    a, b = origin.left.value, origin.right.value
    return "" if a is None or b is None else of_arrays(a, b)


def _gelu(found: Diff, sides: Sequence[Sequence[Node]]) -> str:
    """Tells the tanh form of GELU from the exact one."""
    forms = []
    for record, nodes in zip(found.records, sides, strict=True):
        near = [n for node in nodes[:1] for n in _near(record, node)]
        primitives = {node.primitive for node in near}
        cubic = any(
            is_close(float(x), CUBIC)
            for node in near
            for x in node.literals
            if x.dtype.kind == "f"
        )
        forms.append(
            "tanh"
            if cubic and "tanh" in primitives
            else "erf"
            if primitives & {"erf", "erfc"}
            else ""
        )
    if set(forms) == {"tanh", "erf"}:
        return f"{forms[0]} against {forms[1]} gelu"
    return ""


def _near(record: Record, node: Node) -> list[Node]:
    return record.nodes[max(node.number - NEAR, 0) : node.number + NEAR]


def _literals(
    records: tuple[Record, Record], origin: tuple[Node, Node]
) -> str:
    """Compares the numbers in two operations, or a little before them."""
    ancestors = [
        _ancestors(record, node, DEPTH)
        for record, node in zip(records, origin, strict=True)
    ]
    hints = (_compare_eps(*pair) for pair in itertools.product(*ancestors))
    return next(filter(None, hints), "") or _compare_literals(*origin)


def _ancestors(record: Record, node: Node, depth: int) -> list[Node]:
    """Returns a value, and those that it was computed from in a few steps."""
    found = [node]
    start = 0
    for _ in range(depth):
        stop = len(found)
        for one in found[start:stop]:
            found += [record.nodes[number] for number in one.operands]
        start = stop
    return found


def _compare_eps(left: Node, right: Node) -> str:
    if len(left.literals) != 1 or len(right.literals) != 1:
        return ""
    a, b = float(left.literals[0]), float(right.literals[0])
    same = left.primitive == right.primitive in ("add", "max")
    if not same or is_close(a, b) or not 0 < min(a, b):
        return ""
    return f"eps {a:g} against {b:g}" if max(a, b) <= LARGEST_EPS else ""


def _compare_literals(left: Node, right: Node) -> str:
    if len(left.literals) != 1 or len(right.literals) != 1:
        return ""
    a, b = float(left.literals[0]), float(right.literals[0])
    if is_close(a, b) or left.primitive != right.primitive:
        return ""
    if left.primitive == "div" and a and b:
        found = variance(a / b)
        if found:
            return found
    return f"the constant {a:.6g} against {b:.6g} in `{left.primitive}`"


def _weight(records: tuple[Record, Record], origin: tuple[Node, Node]) -> str:
    """Tells when a matrix product uses a square weight the other way."""
    if any(node.primitive != "dot_general" for node in origin):
        return ""
    operands = [
        [record.nodes[number].value for number in node.operands]
        for record, node in zip(records, origin, strict=True)
    ]
    if any(x is None for pair in operands for x in pair):
        return ""
    for (x, w), result in zip(operands, reversed(origin), strict=True):
        for a, b in ((x, w), (w, x)):
            if b.ndim != 2 or b.shape[0] != b.shape[1] or not a.ndim:
                continue
            for axis in (
                axis for axis, n in enumerate(a.shape) if n == len(b)
            ):
                rows = np.moveaxis(to_float(a), axis, -1)
                for square in (to_float(b), to_float(b).T):
                    if result.value is not None and _order_of(
                        rows @ square, to_float(result.value)
                    ):
                        return "agrees after transposing the weight"
    return ""


def _operand_order(
    records: tuple[Record, Record], origin: tuple[Node, Node]
) -> str:
    """Tells when an operation gets the numbers of the other one reordered."""
    near = [
        [
            one
            for one in _ancestors(record, node, 1)
            if one.primitive != "input" and not one.fingerprint.is_constant
        ]
        for record, node in zip(records, origin, strict=True)
    ]
    for left, right in itertools.product(*near):
        a, b = left.value, right.value
        if a is None or b is None or a.size != b.size or a.size < MIN_ELEMENTS:
            continue
        hint = order(to_float(a), to_float(b))
        # Two programs may well have their axes in different orders.
        if hint and not hint.startswith("agrees after"):
            return hint
    return ""


def _order_of(a: np.ndarray, b: np.ndarray) -> bool:
    tolerance = agreement.match_tolerance(EPS["float64"])
    return a.size == b.size and (find_axis_order(a, b, tolerance) is not None)
