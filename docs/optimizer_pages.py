"""Writes the table of optimizers, from the rows that the tests train with."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
from flax import nnx
from tables import table

from common.training.building import build
from common.training.optax_table import OPTIMIZERS, TRANSFORMATIONS, Row
from common.training.optimizers import (
    NamedOptimizer,
    operands_of,
    with_arguments,
)

COLUMNS = ("optax", "trains", "axis order", "extra arguments", "note")


def pages() -> dict[str, str]:
    """Writes a table for the optimizers and one for their building blocks."""
    parameters = _parameters()
    return {
        "optimizers.md": _table(OPTIMIZERS, parameters),
        "transformations.md": _table(TRANSFORMATIONS, parameters),
    }


def _parameters() -> list[tuple[Any, Any]]:
    """Returns the layouts and parameters of a small model of each library."""
    equinox = build("deep_mlp", backend="equinox", depth=1, size=3)
    flax = build("deep_mlp", backend="flax", depth=1, size=3)
    model = eqx.filter(equinox.native.model, eqx.is_inexact_array)
    state = nnx.as_pure(nnx.state(flax.native.module, nnx.Param))
    backends: list[Any] = [equinox.backend, flax.backend]
    return [
        (backend.optimizer.layouts, params)
        for backend, params in zip(backends, (model, state), strict=True)
    ]


def _table(rows: Mapping[str, Row], parameters: list[tuple[Any, Any]]) -> str:
    return table(
        COLUMNS,
        [_row(name, row, parameters) for name, row in rows.items()],
        text=len(COLUMNS),
    )


def _row(
    name: str, row: Row, parameters: list[tuple[Any, Any]]
) -> tuple[str, ...]:
    label = f"`{name.removeprefix('optax.')}`"
    if row.reason:
        return label, "no", "", "", row.reason
    views = [
        NamedOptimizer(row.make(), layouts, params)
        for layouts, params in parameters
    ]
    is_native = all(view.native_order for view in views)
    used = ", ".join(f"`{argument}`" for argument in used_arguments(views[0]))
    return label, "yes", "native" if is_native else "canonical", used, ""


def used_arguments(optimizer: NamedOptimizer) -> list[str]:
    """Returns the extra arguments whose absence changes the update."""
    names = {"a.weight": jax.ShapeDtypeStruct((3, 3), float)}
    params: Any = names | {"head.weight": names["a.weight"]}

    def trace(arguments):
        update = with_arguments(optimizer.optimizer, arguments)
        operands = operands_of(optimizer.optimizer, params)
        return str(jax.make_jaxpr(update)(*operands))

    expected = trace(optimizer.arguments)
    used = []
    for argument in optimizer.arguments:
        rest = tuple(x for x in optimizer.arguments if x != argument)
        try:
            is_used = trace(rest) != expected
        except Exception:  # a required argument is missing
            is_used = True
        if is_used:
            used.append(argument)
    return used
