"""Finds the two source lines where two JAX programs diverge."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from common.divergence.fingerprint import (
    comparable_values,
    error_scales,
    fingerprint_error,
)
from common.divergence.interpret import Node, Record, interpret
from common.divergence.matching import (
    Matching,
    allowed_error,
    equal_within,
    find_axis_order,
)
from common.divergence.pairing import pair_origins
from common.divergence.result import SIDES, Diff, Origin, Output
from common.divergence.tracing import trace
from common.divergence.walk import BackwardWalk
from common.environment import flag
from common.errors import choose

DTYPES = (None, "float64", "float32", "bfloat16")
KEPT = 2**28
"""Bytes of values that each side keeps besides the fingerprints."""


def find_divergence(
    functions: tuple[Callable[..., Any], Callable[..., Any]],
    arguments: tuple[Sequence[Any], Sequence[Any]],
    *,
    dtype: str | None,
    kept: int = KEPT,
    name_modules: Callable[[Any], Any] = lambda tree: tree,
) -> Diff:
    """Finds where two JAX functions diverge; `common.diff` calls it.

    Args:
        functions: the left and the right function.
        arguments: the arguments to call each with.
        dtype: the dtype to cast all floats to, or `None` to keep theirs.
        kept: how many bytes of values each side keeps.
        name_modules: replaces the modules in a pytree by copies that record
            their path in JAX's name stack.

    Raises:
        TypeError: if a function cannot be traced.
        ValueError: if the outputs have different structures.
    """
    start = time.monotonic()
    if dtype not in DTYPES:
        raise choose("dtype", dtype, DTYPES)
    with jax.enable_x64(dtype == "float64" or flag("jax_enable_x64")):
        left, right = (
            trace(side, function, args, dtype, name_modules)
            for side, function, args in zip(
                SIDES, functions, arguments, strict=True
            )
        )
        if left.tree != right.tree:
            raise ValueError(
                f"outputs: got the structure {left.tree} on the left and "
                f"{right.tree} on the right, expected the same structure. "
                "Return the same containers from both functions, for example "
                "a dict of arrays."
            )
        records = [
            interpret(traced.jaxpr, traced.inputs, traced.labels, kept)
            for traced in (left, right)
        ]
        matching = Matching(*records)
        outputs, origins = _compare(matching, left.paths)
    return Diff(outputs, origins, matching, time.monotonic() - start)


def _compare(
    matching: Matching, paths: Sequence[str]
) -> tuple[list[Output], list[Origin]]:
    left, right = matching.records
    outputs = [
        _compare_output(path, left.nodes[a], right.nodes[b])
        for path, a, b in zip(paths, left.outputs, right.outputs, strict=True)
    ]
    failed = [output for output in outputs if not output.ok]
    walks = [
        BackwardWalk(
            matching, i, [getattr(output, side).number for output in failed]
        )
        for i, side in enumerate(SIDES)
    ]
    unmatched = [walk.find_origins() for walk in walks]
    origins = _first_nan(left, right) + pair_origins(walks, *unmatched)
    for output in failed:
        numbers = (output.left.number, output.right.number)
        if all(
            walk.is_matched(number)
            for walk, number in zip(walks, numbers, strict=True)
        ):
            reason = (
                f"each program computes output{output.path} of the other, "
                "but returns a different value"
            )
            origins.append(Origin(output.left, output.right, reason))
    origins = [_add_inputs(origin, walks) for origin in origins]
    return outputs, origins


def _add_inputs(origin: Origin, walks: Sequence[BackwardWalk]) -> Origin:
    """Adds the inputs of an origin that the other program does not have."""
    unmatched = [
        f"only the {side} has {label}"
        for side, walk in zip(SIDES, walks, strict=True)
        for label in walk.unmatched_inputs(getattr(origin, side))
    ]
    if not unmatched:
        return origin
    reason = "; ".join(filter(None, (origin.reason, *unmatched)))
    return dataclasses.replace(origin, reason=reason)


def _first_nan(left: Record, right: Record) -> list[Origin]:
    """Returns the first NaN, if only one program returns NaNs."""
    firsts = []
    for record in (left, right):

        def has_nan(number: int, record: Record = record) -> bool:
            return bool(record.nodes[number].fingerprint.nan)

        created = (
            node
            for node in record.nodes
            if node.fingerprint.nan and not any(map(has_nan, node.operands))
        )
        returned = any(map(has_nan, record.outputs))
        firsts.append(next(created, None) if returned else None)
    if (firsts[0] is None) == (firsts[1] is None):
        return []
    return [Origin(firsts[0], firsts[1], "the first NaN")]


def _compare_output(path: str, left: Node, right: Node) -> Output:
    tolerance = allowed_error(left, right)
    error = fingerprint_error(left.fingerprint, right.fingerprint)
    ok = error <= tolerance
    if left.value is not None and right.value is not None:
        (_, a), (_, b) = map(comparable_values, (left.value, right.value))
        if a.shape == b.shape:
            ok = equal_within(a, b, tolerance)
            error = max(error, _largest_error(a, b))
        elif ok:
            ok = find_axis_order(a, b, tolerance) is not None
    return Output(path, left, right, ok, error)


def _largest_error(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the largest relative error of the finite elements."""
    if a.dtype.kind in "biu":
        return 0.0 if np.array_equal(a, b) else np.inf
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    scale = error_scales(b)
    errors = np.abs(a - b) / np.where(scale, scale, 1)
    return float(np.max(errors, initial=0.0))
