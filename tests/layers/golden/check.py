"""Compares golden files with their definitions, and results with files."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from common.agreement import layer_tolerance, magnitude, relative_error
from tests.layers.golden.case import complete
from tests.layers.golden.cases import cases

QUANTITIES = {
    "outputs": "layer",
    "gradients": "layer gradients",
    "buffers": "layer",
}


def check(layer: str, stored: list[dict[str, Any]]) -> list[str]:
    """Recomputes the results in a golden file from its inputs.

    Results may differ by round-off, because NumPy's functions differ in the
    last bit between builds.

    Args:
        layer: the name of a row.
        stored: the cases in its file.

    Returns:
        A description of every mismatch.
    """
    found = cases().get(layer, [])
    fields = [case["fields"] for case in stored]
    expected = [_plain(case.fields) for case in found]
    if fields != expected:
        return [f"{layer} cases: got {fields}, expected {expected}"]
    problems = []
    for number, (case, data) in enumerate(zip(found, stored, strict=True)):
        again = complete(case, data)
        for i, (got, expected) in enumerate(
            zip(again["calls"], data["calls"], strict=True)
        ):
            where = f"{layer} case {number} call {i}"
            problems += compare(got, expected, where)
    return problems


def compare(
    got: dict[str, Any],
    expected: dict[str, Any],
    where: str,
    zero_gradient: frozenset[str] = frozenset(),
) -> Iterator[str]:
    """Describes every array of a call that differs from a golden file.

    Args:
        got: the `"outputs"`, `"gradients"` and `"buffers"` of the call.
        expected: those in the file.
        where: describes the call in the messages.
        zero_gradient: parameters whose exact gradient is zero. The error of
            their gradients is relative to the largest gradient of the call.
    """
    for quantity, bound in QUANTITIES.items():
        ours, theirs = _named(got[quantity]), _named(expected[quantity])
        if ours.keys() != theirs.keys():
            yield (
                f"{where}, {quantity}: got {sorted(ours)}, "
                f"expected {sorted(theirs)}"
            )
            continue
        limit = layer_tolerance("float64", bound, 1)
        largest = max(map(magnitude, theirs.values()), default=0.0)
        for name, y in theirs.items():
            x = np.asarray(ours[name])
            if np.issubdtype(y.dtype, np.integer) and np.issubdtype(
                x.dtype, np.integer
            ):
                x = x.astype(y.dtype)  # a counter may be narrower
            scale = largest if name in zero_gradient else None
            error = relative_error(x, y, scale)
            if not error <= limit:
                yield (
                    f"{where}, {quantity} {name}: got an error of "
                    f"{error:.3g}, expected at most {limit:.3g}"
                )


def _named(arrays: Any) -> dict[Any, Any]:
    return arrays if isinstance(arrays, dict) else dict(enumerate(arrays))


def _plain(fields: Any) -> Any:
    """Replaces tuples by lists, as in JSON."""
    if isinstance(fields, dict):
        return {name: _plain(x) for name, x in fields.items()}
    if isinstance(fields, list | tuple):
        return [_plain(x) for x in fields]
    return fields
