"""Finds the two source lines where two JAX programs diverge."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from common.divergence.interpret import interpret
from common.divergence.matching import Matching, narrower_tolerance
from common.divergence.measure import are_equal, error_between
from common.divergence.orders import describe_order
from common.divergence.pairing import differing_inputs, pair_origins, prune
from common.divergence.reasons import climb
from common.divergence.record import Node, Record
from common.divergence.result import SIDES, Diff, Origin, Output
from common.divergence.rounded import (
    Tolerances,
    casts_to_other_dtypes,
    literal_eps,
    rounded_origins,
)
from common.divergence.stops import are_backward, find_stops
from common.divergence.tracing import Traced, trace
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
    tolerance: float | None = None,
    name_modules: Callable[[Any], Any] = lambda tree: tree,
) -> Diff:
    """Finds where two JAX functions diverge; `common.diff` calls it.

    Args:
        functions: the left and the right function.
        arguments: the arguments to call each with.
        dtype: the dtype to evaluate both in, or `None` for their own.
        kept: how many bytes of values each side keeps.
        tolerance: the largest relative error of values that match, or `None`
            for that of the dtypes that they passed through.
        name_modules: replaces the modules in a pytree by copies that record
            their path in JAX's name stack.

    Raises:
        TypeError: if a function cannot be traced.
        ValueError: if the outputs have no path in common, or if there is no
            such dtype or tolerance.
    """
    start = time.monotonic()
    if dtype not in DTYPES:
        raise choose("dtype", dtype, DTYPES)
    if tolerance is not None and not 0 <= tolerance < 1:
        raise ValueError(
            f"tolerance: got {tolerance}, expected a relative error from 0 "
            "to 1. Pass None for the tolerance of the dtypes."
        )
    wide = dtype == "float64"
    left, right = (
        trace(side, function, args, dtype, name_modules)
        for side, function, args in zip(
            SIDES, functions, arguments, strict=True
        )
    )
    with jax.enable_x64(wide or flag("jax_enable_x64")):
        records = [
            interpret(one.jaxpr, one.inputs, one.labels, kept, wide)
            for one in (left, right)
        ]
        paths, missing = _common_outputs(left, right, records)
        if tolerance is not None or not wide:
            allowed = (
                narrower_tolerance
                if tolerance is None
                else _constant(tolerance)
            )
            matching = Matching(records[0], records[1], allowed)
            outputs, origins = _compare(matching, paths)
            ceiling = None
        else:
            literals = literal_eps((left.is_wide, right.is_wide))
            matching, outputs, origins, ceiling = _compare_rounded(
                records, paths, Tolerances(literals)
            )
    return Diff(
        outputs,
        origins,
        matching,
        time.monotonic() - start,
        ceiling,
        tuple(missing),
    )


def _constant(tolerance: float) -> Callable[[Node, Node], float]:
    def allowed(left: Node, right: Node) -> float:
        del left, right
        return tolerance

    return allowed


def _common_outputs(
    left: Traced, right: Traced, records: Sequence[Record]
) -> tuple[list[str], list[str]]:
    """Keeps the outputs that both programs return.

    Returns:
        Their paths, and a sentence for each of the others.

    Raises:
        ValueError: if they have none in common.
    """
    if left.tree == right.tree:
        return left.paths, []
    common = [path for path in left.paths if path in right.paths]
    if not common:
        raise ValueError(
            f"outputs: got the structure {left.tree} on the left and "
            f"{right.tree} on the right, expected the same structure. "
            "Return the same containers from both functions, for example "
            "a dict of arrays."
        )
    missing = []
    for side, traced, record in zip(
        SIDES, (left, right), records, strict=True
    ):
        numbers = dict(zip(traced.paths, record.outputs, strict=True))
        missing += [
            f"output{path} is returned on the {side} only"
            for path in traced.paths
            if path not in common
        ]
        record.outputs = [numbers[path] for path in common]
    return common, missing


def _compare_rounded(
    records: Sequence[Record], paths: Sequence[str], tolerances: Tolerances
) -> tuple[Matching, list[Output], list[Origin], float | None]:
    """Compares programs whose casts round, perhaps not alike.

    Returns:
        The matches, the outputs, the origins, and the error that the casts
        can hide, or `None` if both programs round alike.
    """
    strict = Matching(records[0], records[1], tolerances.strict)
    outputs, origins = _compare(strict, paths)
    casts = rounded_origins(records, origins)
    if not casts:
        return strict, outputs, origins, None
    matching = Matching(records[0], records[1], tolerances.of_either)
    _, above = _compare(matching, paths)
    same = not any(map(casts_to_other_dtypes, casts))
    outputs = [
        dataclasses.replace(
            one,
            ok=one.ok
            or same
            and are_equal(
                one.left, one.right, tolerances.of_both(one.left, one.right)
            ),
        )
        for one in outputs
    ]
    hidden = max(tolerances.of_either(one.left, one.right) for one in outputs)
    if all(output.ok for output in outputs):
        return matching, outputs, [], hidden
    shown = {(id(one.left), id(one.right)) for one in above}
    casts = [
        one for one in casts if (id(one.left), id(one.right)) not in shown
    ]
    return matching, outputs, above + casts, hidden


def _compare(
    matching: Matching, paths: Sequence[str]
) -> tuple[list[Output], list[Origin]]:
    left, right = matching.records
    outputs = [
        _compare_output(matching, path, left.nodes[a], right.nodes[b])
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
            origins.append(_misplaced(matching, output))
    origins = prune([_add_inputs(origin, walks) for origin in origins], walks)
    origins = differing_inputs(origins, walks) + origins
    if origins and are_backward(walks, origins[0]):
        origins = find_stops(walks) + origins
    return outputs, origins


def _misplaced(matching: Matching, output: Output) -> Origin:
    """Returns the origin of an output that the other program computes."""
    both = climb(matching, output.left, output.right)
    order = describe_order(*both, matching.allowed_error(*both))
    if order:
        return Origin(*both, order)
    reason = (
        f"each program computes output{output.path} of the other, but returns "
        "a different value"
    )
    return Origin(output.left, output.right, reason)


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


def _compare_output(
    matching: Matching, path: str, left: Node, right: Node
) -> Output:
    ok = are_equal(left, right, matching.allowed_error(left, right))
    return Output(path, left, right, ok, error_between(left, right))
