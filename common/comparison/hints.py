"""Tells what a known difference between two models looks like."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from common import agreement
from common.agreement import EPS
from common.comparison.inspection import Inspection
from common.divergence import Diff
from common.divergence.interpret import Node, Record
from common.divergence.matching import find_axis_order

SMALLEST_EXAMPLES, MOST_EXAMPLES = 2, 10**7
SPACING = 1e-3
"""How near a ratio must be to N/(N-1), in units of the distance to the next
such ratio."""
LARGEST_EPS = 1e-2
CUBIC = 0.044715
"""The coefficient of the tanh form of GELU."""
DEPTH = 2
"""How many operations before a divergence are looked at for constants."""
NEAR = 16
"""How many operations around a divergence are looked at."""
ORIGINS = 3
MIN_ELEMENTS = 3


def of_ceilings(
    inspections: Sequence[Inspection], own: str, error: float
) -> str:
    """Tells when only one side computes in a narrow dtype.

    Args:
        inspections: of the left and the right.
        own: the models' own dtype.
        error: the relative error that was found.
    """
    left, right = inspections
    if left.eps == right.eps or max(left.eps, right.eps) <= EPS[own]:
        return ""
    side, narrow = ("left", left) if left.eps > right.eps else ("right", right)
    if not error <= agreement.amplified(narrow.eps):
        return ""
    where = f" at {narrow.cast}" if narrow.cast else ""
    return f"only the {side} casts to {narrow.dtype}{where}"


def of_updates(after: tuple[Any, Any], before: tuple[Any, Any]) -> str:
    """Tells how a training step changed a buffer on both sides."""
    kept = [
        np.array_equal(x, y) for x, y in zip(after, before, strict=True)
    ]
    for i, side in enumerate(("left", "right")):
        if kept[i] and not kept[1 - i]:
            return f"the {side} does not update it"
    left, right = (_float(x) for x in after)
    if left.shape != right.shape:
        return ""
    slope = _slope(left, right)
    found = None if slope is None else _variance(slope)
    if found:
        return found
    changes = [
        _float(x) - _float(y) for x, y in zip(after, before, strict=True)
    ]
    ratio = _ratio(*changes)
    if ratio is None:
        return ""
    return f"the left changes {ratio:.6g} times as much: another momentum"


def of_weights(left: Any, right: Any) -> str:
    """Tells how the numbers of two weights are related."""
    left, right = _float(left), _float(right)
    if left.size != right.size or not (left.any() and right.any()):
        return ""
    return _order(left, right) or _constant_ratio(left, right)


def of_arrays(left: Any, right: Any) -> str:
    """Tells how the numbers of two results are related."""
    left, right = _float(left), _float(right)
    if left.size != right.size or not left.size:
        return ""
    for side, x, other in (("left", left, right), ("right", right, left)):
        if not x.any() and other.any():
            return (
                f"it is zero on the {side} only, as behind a `stop_gradient`"
            )
    return _order(left, right) or _constant_ratio(left, right)


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
            _is_close(float(x), CUBIC)
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
    """Compares the numbers that stand in two operations, or just before."""
    ancestors = [
        _ancestors(record, node)
        for record, node in zip(records, origin, strict=True)
    ]
    for left, right in itertools.product(*ancestors):
        if hint := _compare_literals(left, right):
            return hint
    return ""


def _ancestors(record: Record, node: Node) -> list[Node]:
    """Returns a value, and those that it is computed from in two steps."""
    found = [node]
    start = 0
    for _ in range(DEPTH):
        stop = len(found)
        for one in found[start:stop]:
            found += [record.nodes[number] for number in one.operands]
        start = stop
    return found


def _compare_literals(left: Node, right: Node) -> str:
    if len(left.literals) != 1 or len(right.literals) != 1:
        return ""
    a, b = float(left.literals[0]), float(right.literals[0])
    if _is_close(a, b) or left.primitive != right.primitive:
        return ""
    if left.primitive in ("add", "max") and 0 < min(a, b) and (
        max(a, b) <= LARGEST_EPS
    ):
        return f"eps {a:g} against {b:g}"
    if left.primitive == "div" and a and b:
        found = _variance(a / b)
        if found:
            return found
    return f"the constant {a:.6g} against {b:.6g} in `{left.primitive}`"


def _weight(
    records: tuple[Record, Record], origin: tuple[Node, Node]
) -> str:
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
            for axis in (axis for axis, n in enumerate(a.shape) if n == len(b)):
                rows = np.moveaxis(_float(a), axis, -1)
                for square in (_float(b), _float(b).T):
                    if result.value is not None and _order_of(
                        rows @ square, _float(result.value)
                    ):
                        return "agrees after transposing the weight"
    return ""


def _operand_order(
    records: tuple[Record, Record], origin: tuple[Node, Node]
) -> str:
    """Tells when the same operation gets the same numbers, reordered."""
    left, right = origin
    if left.primitive != right.primitive:
        return ""
    for i, j in zip(left.operands, right.operands, strict=False):
        a, b = records[0].nodes[i].value, records[1].nodes[j].value
        if a is None or b is None or a.size != b.size or a.size < MIN_ELEMENTS:
            continue
        a, b = _float(a), _float(b)
        hint = _order(a, b)
        # Weights of two libraries have their axes in different orders.
        if hint and not hint.startswith("agrees after"):
            return hint
    return ""


def _order_of(a: np.ndarray, b: np.ndarray) -> bool:
    tolerance = agreement.match_tolerance(EPS["float64"])
    return a.size == b.size and (
        find_axis_order(a, b, tolerance) is not None
    )


def _order(left: np.ndarray, right: np.ndarray) -> str:
    """Tells whether two arrays hold the same numbers in another order."""
    if _agrees(left.ravel(), right.ravel()):
        return "agrees after reshaping"
    if left.ndim == right.ndim and left.ndim > 1:
        for axes in itertools.permutations(range(left.ndim)):
            moved = left.transpose(axes)
            if moved.shape == right.shape and _agrees(moved, right):
                return f"agrees after transposing {axes}"
    if left.size > 1 and _agrees(np.sort(left.ravel()), np.sort(right.ravel())):
        return _flatten_order(left, right) or "the same numbers, reordered"
    return ""


def _flatten_order(left: np.ndarray, right: np.ndarray) -> str:
    """Tells whether an axis was flattened from two or three in other orders."""
    if left.shape != right.shape:
        return ""
    for axis, size in enumerate(left.shape):
        for shape in _factors(size):
            parts = (*left.shape[:axis], *shape, *left.shape[axis + 1 :])
            whole = left.reshape(parts)
            for order in itertools.permutations(range(len(shape))):
                axes = [
                    *range(axis),
                    *(axis + i for i in order),
                    *range(axis + len(shape), len(parts)),
                ]
                if _agrees(whole.transpose(axes).reshape(left.shape), right):
                    moved = tuple(shape[i] for i in order)
                    return (
                        f"flattened in another order: {shape} against {moved}"
                    )
    return ""


def _factors(size: int) -> Iterator[tuple[int, ...]]:
    for a in range(2, size):
        if size % a == 0:
            yield a, size // a
            for b in range(2, size // a):
                if size // a % b == 0:
                    yield a, b, size // a // b


def _constant_ratio(left: np.ndarray, right: np.ndarray) -> str:
    if left.shape != right.shape:
        return ""
    ratio = _ratio(left, right)
    if ratio is None:
        return ""
    return _variance(1 / ratio) or f"the left is {ratio:.6g} times the right"


def _variance(ratio: float) -> str:
    """Tells a ratio of N/(N-1), in either direction."""
    larger = max(ratio, 1 / ratio) if ratio > 0 else 1.0
    count = larger / (larger - 1) if larger > 1 else math.inf
    if not SMALLEST_EXAMPLES <= count <= MOST_EXAMPLES:
        return ""
    n = round(count)
    if abs(larger - n / (n - 1)) > SPACING / n**2:
        return ""
    words = ["biased", "unbiased"]
    left, right = words if ratio > 1 else reversed(words)
    return (
        f"ratio N/(N-1) with N = {n}: {left} variance on the left against "
        f"{right} on the right"
    )


def _ratio(left: np.ndarray, right: np.ndarray) -> float | None:
    """Returns the constant that the right was multiplied with, if any."""
    square = float(np.sum(right * right))
    if left.shape != right.shape or left.size < MIN_ELEMENTS or not square:
        return None
    ratio = float(np.sum(left * right)) / square
    same = _is_close(ratio, 1.0) or not ratio
    return None if same or not _agrees(left, ratio * right) else ratio


def _slope(left: np.ndarray, right: np.ndarray) -> float | None:
    """Returns the slope if the right is a linear function of the left."""
    if left.size < MIN_ELEMENTS:
        return None
    a, b = left.ravel() - left.mean(), right.ravel() - right.mean()
    square = float(np.sum(a * a))
    if not square:
        return None
    slope = float(np.sum(a * b)) / square
    return slope if _agrees(slope * a, b) else None


def _agrees(a: np.ndarray, b: np.ndarray) -> bool:
    tolerance = agreement.match_tolerance(_rounding(a, b))
    return agreement.relative_error(a, b) <= tolerance


def _rounding(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the machine epsilon of the numbers in two arrays."""

    def is_exact(x):
        with np.errstate(over="ignore"):
            return np.array_equal(x, x.astype(np.float32).astype(np.float64))

    return EPS["float32"] if is_exact(a) or is_exact(b) else EPS["float64"]


def _is_close(a: float, b: float) -> bool:
    tolerance = agreement.match_tolerance(EPS["float32"])
    return abs(a - b) <= tolerance * max(abs(a), abs(b)) / NEAR


def _float(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)


