"""Finds where two models differ at a symmetric point."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from common.alignment.arrangement import Arrangement
from common.alignment.sides import Side, precise
from common.alignment.ties import Values
from common.divergence.result import Diff
from common.divergence.search import KEPT, find_divergence
from common.divergence.text import describe
from common.native import Call, NativeModel
from common.registry import find_library, find_module_paths


@dataclasses.dataclass(frozen=True)
class SymmetricPoint:
    """Two models as functions of arrays that hold the same values.

    Attributes:
        functions: the left and the right function, of arrays and inputs.
        arguments: the arrays by dotted name, and the inputs, of each, in
            float64.
        dtypes: the models' own dtypes of these arrays.
        inputs: the inputs of each in their own dtypes.
        error: the relative error of the outputs.
    """

    functions: tuple[Callable[..., Any], Callable[..., Any]]
    arguments: tuple[tuple[Any, ...], tuple[Any, ...]]
    dtypes: tuple[dict[str, Any], dict[str, Any]]
    inputs: tuple[Any, Any]
    error: float

    def diff(
        self,
        kept: int = KEPT,
        dtype: str | None = "float64",
        tolerance: float | None = None,
    ) -> Diff:
        """Finds where the two models diverge.

        Args:
            kept: how many bytes of values to keep on each side.
            dtype: the dtype to run both in, or `None` for that of each array
                and of the inputs.
            tolerance: the largest relative error of values that count as
                equal, or `None` for that of the dtypes.

        Raises:
            ValueError: if their outputs have different structures, or if
                there is no such dtype or tolerance.
        """
        arguments = self._own_arguments() if dtype is None else self.arguments
        wide = dtype == "float64"
        full = jax.default_matmul_precision("highest")
        with precise() if wide else full:
            return find_divergence(
                self.functions,
                arguments,
                dtype=dtype,
                kept=kept,
                tolerance=tolerance,
            )

    def _own_arguments(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        left, right = (
            ({n: x.astype(dtypes[n]) for n, x in arrays.items()}, xs)
            for (arrays, _), dtypes, xs in zip(
                self.arguments, self.dtypes, self.inputs, strict=True
            )
        )
        return left, right


def symmetric_point(
    sides: tuple[Side, Side],
    calls: tuple[Call | None, Call | None],
    arrangement: Arrangement,
    point: int,
    values: Values,
    error: float,
) -> SymmetricPoint:
    """Returns both models at a symmetric point.

    Args:
        sides: both models.
        calls: how they are called.
        arrangement: how their arrays are cut.
        point: the number of the symmetric point.
        values: the values of some pieces instead.
        error: of the outputs.
    """
    functions, arguments = [], []
    for side, call, half, own in zip(
        sides, calls, arrangement.halves, values, strict=True
    ):
        model = with_module_paths(side.model.native, call)
        functions.append(_function(model, side))
        filled = half.fill(side.originals, point, own)
        arrays = {name: np.asarray(x) for name, x in filled.items()}
        arguments.append((arrays, side.xs))
    first, second = sides
    return SymmetricPoint(
        (functions[0], functions[1]),
        (arguments[0], arguments[1]),
        (_dtypes(first), _dtypes(second)),
        (first.given, second.given),
        error,
    )


def _dtypes(side: Side) -> dict[str, Any]:
    return {name: x.dtype for name, x in side.originals.items()}


def with_module_paths(native: Any, call: Call | None) -> NativeModel:
    """Returns a model whose operations are named after its modules."""
    plain = NativeModel(native, call)
    inner = call or find_library(plain.library).call
    add = find_module_paths(plain.library)

    def named(native, xs, *, training, key=None):
        outputs, _ = inner(add(native), xs, training=training, key=key)
        return outputs, None

    return NativeModel(native, named)


def _function(model: NativeModel, side: Side) -> Callable[..., Any]:
    def function(arrays, xs):
        return side.outputs(arrays, xs, model)

    function.__name__ = side.label
    return function


def describe_place(found: Diff) -> str:
    """Returns the first place at which two models diverge."""
    if not found.origins:
        return "no operation was found at which they diverge"
    origin = found.origins[0]
    lines = ["the models diverge at"]
    for label in ("left", "right"):
        node = getattr(origin, label)
        if node is None:
            lines.append(f"  {label:<5} no matching operation")
        else:
            lines += describe(label, node)
    return "\n".join(lines)
