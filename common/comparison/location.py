"""Finds the source lines at which two models first diverge."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from common.comparison import halves, hints
from common.comparison.duel import Duel, Failure
from common.comparison.frames import innermost
from common.comparison.functions import diff
from common.comparison.programs import Program
from common.comparison.rows import Location, Row
from common.divergence import Diff
from common.divergence.record import Node

INFERENCE = frozenset({"forward", "eval", "overwritten"})
OF_OUTPUTS = frozenset({"training"})
OF_FORWARD = OF_OUTPUTS | {"loss", "buffers"}


def of_state(row: Row, differing: Mapping[str, tuple[Any, Any]]) -> Location:
    """Describes arrays that differ before anything is run."""
    first = row.first
    if first is None or first.leaf not in differing:
        return Location()
    return Location(hint=hints.of_weights(*differing[first.leaf]))


def locate(duel: Duel, failure: Failure, model_dtype: str) -> Location:
    """Runs `diff` on what failed, from the arrays that lead to it.

    Args:
        duel: that failed.
        failure: its first mismatch.
        model_dtype: the narrowest dtype of the models' parameters.
    """
    row = failure.row
    leaf = failure.place.leaf
    ours, theirs = (values.get(leaf) for values in failure.values)
    previous = failure.previous or ({}, {})
    old = [values.get(leaf) for values in previous]
    inspections = [p.inference for p in duel.programs]
    hint = hints.of_draws(inspections) if row.quantity in INFERENCE else ""
    hint = hint or hints.of_ceilings(
        inspections, model_dtype, failure.place.error
    )
    if not hint and ours is not None and theirs is not None:
        if row.quantity == "buffers" and all(x is not None for x in old):
            hint = hints.of_updates((ours, theirs), (old[0], old[1]))
        hint = hint or hints.of_arrays(ours, theirs)
    if row.quantity == "overwritten":
        return Location(hint=hint)
    found = _diff(duel, failure)
    nodes = _first_nodes(found)
    lines = [innermost(node.frames) if node else "" for node in nodes]
    values = operations = ""
    if found.origins:
        operations, values = hints.of_diff(found), hints.of_values(found)
    return Location(
        next((node.module for node in nodes if node), ""),
        (lines[0], lines[1]),
        hints.best(hint, operations, values),
        str(found),
    )


def _first_nodes(found: Diff) -> tuple[Node | None, Node | None]:
    """Returns the first operation of each side without a match.

    Where the first divergence is on one side only, the other side often has
    an operation in its place that was not recognized as such.
    """
    left = (origin.left for origin in found.origins if origin.left)
    right = (origin.right for origin in found.origins if origin.right)
    return next(left, None), next(right, None)


def _diff(duel: Duel, failure: Failure) -> Diff:
    functions = [
        _function(duel, program, failure.row.quantity)
        for program in duel.programs
    ]
    left, right = (
        (failure.trained, rest, program.batch)
        if _is_step(failure.row.quantity)
        else (program.half.arrays(failure.trained, rest), program.batch)
        for rest, program in zip(failure.rest, duel.programs, strict=True)
    )
    return diff(*functions, *left, right_args=right, dtype=None)


def _is_step(quantity: str) -> bool:
    """Tells whether gradients are needed to see a quantity."""
    return quantity not in INFERENCE | OF_FORWARD


def _function(
    duel: Duel, program: Program, quantity: str
) -> Callable[..., dict[str, Any]]:
    """Returns a half as a function whose outputs include what failed.

    Without gradients, it is a function of the model's own arrays, so that
    nothing that the mapping does to them is among the operations.
    """
    left = duel.programs[0]
    names = halves.comparable_rest(duel.mapping, *duel.halves)

    def outputs_of(outputs: Any) -> dict[str, Any]:
        leaves = jax.tree.leaves(outputs)
        return dict(zip(left.outputs, leaves, strict=True))

    def buffers_of(rest: Any) -> dict[str, Any]:
        if program is not left:
            return {name: rest[name] for name in names}
        return {name: duel.mapping.layouts[name].apply(rest) for name in names}

    def infer(arrays, batch):
        outputs, _ = program.half.apply(arrays, batch[0], named=True)
        return outputs_of(outputs)

    def forward(arrays, batch):
        outputs, rest = program.forward(arrays, batch[0], named=True)
        if quantity in OF_OUTPUTS:
            return outputs_of(outputs)
        if quantity == "loss":
            return {"loss": program.loss(outputs)}
        return buffers_of(rest)

    def step(trained, rest, batch):
        def objective(trained):
            return program.objective(trained, rest, batch[0], named=True)

        (loss, (_, rest)), gradients = jax.value_and_grad(
            objective, has_aux=True
        )(trained)
        return {
            "loss": loss,
            "gradients": program.gradients(gradients),
            "buffers": buffers_of(rest),
        }

    if _is_step(quantity):
        return step
    return infer if quantity in INFERENCE else forward
