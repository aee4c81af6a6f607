"""Writes the table of optimizers, from the rows that the tests train with."""

from typing import Any

import equinox as eqx
import jax
from flax import nnx
from tables import table

from common.rendering.files import to_json
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
    optimizers, transformations = (
        [_row(name, row, parameters) for name, row in rows.items()]
        for rows in (OPTIMIZERS, TRANSFORMATIONS)
    )
    values = [
        dict(zip(COLUMNS, row, strict=True))
        for row in (*optimizers, *transformations)
    ]
    return {
        "optimizers.md": table(COLUMNS, optimizers, text=len(COLUMNS)),
        "transformations.md": table(
            COLUMNS, transformations, text=len(COLUMNS)
        ),
        "optimizers.json": to_json(values),
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
