"""Holds golden files to their definitions, and results to golden files."""

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
    """Computes a file's results again, from the inputs that it stores.

    To round-off: NumPy's functions differ in the last bit between builds.

    Args:
        layer: the name of a row.
        stored: the cases in its file.

    Returns:
        What is not as the definition gives it.
    """
    found = cases().get(layer, [])
    fields = [it["fields"] for it in stored]
    if fields != [_plain(it.fields) for it in found]:
        return [f"{layer}: got other cases than those of the definitions"]
    problems = []
    for number, (case, data) in enumerate(zip(found, stored, strict=True)):
        again = complete(case, data)
        for i, (got, want) in enumerate(
            zip(again["calls"], data["calls"], strict=True)
        ):
            what = f"{layer} case {number} call {i}"
            problems += compare(got, want, what)
    return problems


def compare(
    got: dict[str, Any],
    want: dict[str, Any],
    what: str,
    zero_gradient: frozenset[str] = frozenset(),
) -> Iterator[str]:
    """Names what of a call's results is not what a golden file says.

    Args:
        got: `"outputs"`, `"gradients"` and `"buffers"`.
        want: the same, of the file.
        what: names the call in the messages.
        zero_gradient: parameters whose true gradient is zero; what is left
            of it is measured in the call's largest gradient.
    """
    for quantity, bound in QUANTITIES.items():
        ours, theirs = _named(got[quantity]), _named(want[quantity])
        if ours.keys() != theirs.keys():
            yield (
                f"{what}, {quantity}: got {sorted(ours)}, "
                f"expected {sorted(theirs)}"
            )
            continue
        limit = layer_tolerance("float64", bound, 1)
        largest = max(map(magnitude, theirs.values()), default=0.0)
        for name, true in theirs.items():
            x = np.asarray(ours[name])
            if np.issubdtype(true.dtype, np.integer) and np.issubdtype(
                x.dtype, np.integer
            ):
                x = x.astype(true.dtype)  # a counter may be narrower
            scale = largest if name in zero_gradient else None
            off = relative_error(x, true, scale)
            if not off <= limit:
                yield (
                    f"{what}, {quantity} {name}: off by {off:.3g}, "
                    f"expected within {limit:.3g}"
                )


def _named(arrays: Any) -> dict[Any, Any]:
    return arrays if isinstance(arrays, dict) else dict(enumerate(arrays))


def _plain(fields: Any) -> Any:
    """Lists in place of tuples, as JSON has them."""
    if isinstance(fields, dict):
        return {name: _plain(x) for name, x in fields.items()}
    if isinstance(fields, list | tuple):
        return [_plain(x) for x in fields]
    return fields
