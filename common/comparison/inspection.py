"""What a traced program says about itself: its narrowest dtype, its draws."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.agreement import EPS
from common.comparison.frames import frame_of

RANDOM = {
    "random_bits",
    "random_gamma",
    "rng_bit_generator",
    "rng_uniform",
    "threefry2x32",
}
"""The operations that draw random numbers."""
MASKED = 1e9
"""Numbers as large as this stand for infinity."""
SHORT = "bfloat16"


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What is known about a program before it runs.

    Attributes:
        dtype: the name of the narrowest floating dtype of an array in it.
        cast: the source line at which an array first has this dtype, or the
            array that does.
        draw: the source line that draws random numbers; `None` if none does.
    """

    dtype: str
    cast: str
    draw: str | None

    @property
    def eps(self) -> float:
        """The machine epsilon of the narrowest dtype."""
        return EPS[self.dtype]


def inspect(jaxpr: Any) -> Inspection:
    """Reads a closed jaxpr."""
    dtype, cast, draw = "float64", "", None
    for x in _constants(jaxpr):
        if is_rounded(x) and EPS[x.dtype.name] > EPS[dtype]:
            dtype, cast = x.dtype.name, "a constant outside of the model"
    for equation, line in _equations(jaxpr, ""):
        if equation.primitive.name in RANDOM and draw is None:
            draw = line
        for variable in equation.outvars:
            found = _float_dtype(variable.aval)
            if found is not None and EPS[found] > EPS[dtype]:
                dtype, cast = found, line
    return Inspection(dtype, cast, draw)


def draws_of(
    labels: tuple[str, str], inspections: Sequence[Inspection], mode: str
) -> list[str]:
    """Says which models draw random numbers."""
    return [
        f"{label} draws random numbers in {mode} mode"
        + (f", at {inspection.draw}" if inspection.draw else "")
        for label, inspection in zip(labels, inspections, strict=True)
        if inspection.draw is not None
    ]


def require_draws_of_one(inspections: Sequence[Inspection]) -> None:
    """Refuses outputs that are random on both sides.

    Where one side only draws random numbers, the report says so.

    Raises:
        ValueError: if both models draw random numbers in inference mode.
    """
    draws = [inspection.draw for inspection in inspections]
    if None not in draws:
        left, right = (draw or "an unknown line" for draw in draws)
        raise ValueError(
            f"compare: got random numbers in inference mode, drawn at {left} "
            f"on the left and at {right} on the right, expected none. Pass "
            "`left_call` and `right_call`, which call the models without "
            "them, for example with fixed noise among the inputs."
        )


def precision_of(
    labels: tuple[str, str],
    inspections: Sequence[Sequence[Inspection]],
    dtype: str,
    model_dtype: str,
) -> tuple[str, list[str]]:
    """Returns the dtype whose tolerances apply, and why.

    A cast to the models' own dtype, such as a softmax in float32, limits the
    precision. A cast to a narrower one does so only if both models have it.
    """
    narrow = [max(pair, key=_eps) for pair in inspections]
    allowed = [x.dtype for x in narrow if x.eps <= EPS[model_dtype]]
    both = min((x.dtype for x in narrow), key=lambda name: EPS[name])
    precision = max([dtype, both, *allowed], key=lambda name: EPS[name])
    if dtype != "float64":
        return precision, []
    notes = [
        f"precision ceiling of {label}: {x.dtype}"
        + (f" at {x.cast}" if x.cast else "")
        for label, x in zip(labels, narrow, strict=True)
        if x.dtype != "float64"
    ]
    return precision, notes


def inspect_arrays(arrays: Mapping[str, Any]) -> Inspection:
    """Tells in which dtype the numbers of some arrays were rounded.

    Args:
        arrays: that have no counterpart in the other model, which may compute
            the same numbers anew, for example a rotary table.
    """
    found = Inspection("float64", "", None)
    for name, x in arrays.items():
        if is_rounded(x) and EPS[x.dtype.name] > found.eps:
            found = Inspection(x.dtype.name, f"the array {name}", None)
    return found


def is_rounded(x: Any) -> bool:
    """Tells whether an array holds numbers that its dtype has rounded.

    Numbers that a much narrower dtype holds as well, such as 0, 1 and 0.5,
    are most likely exact. The huge ones of a mask have no effect.
    """
    name = getattr(getattr(x, "dtype", None), "name", "float64")
    if name not in EPS or name == "float64":
        return False
    values = np.asarray(x).astype(np.float64)
    values = values[np.abs(values) < MASKED]
    short = values.astype(jnp.float8_e5m2 if name == SHORT else SHORT)
    return not np.array_equal(values, short.astype(np.float64))


def _constants(jaxpr: Any) -> Iterator[Any]:
    """Yields the arrays that a closed jaxpr and its inner ones hold."""
    yield from getattr(jaxpr, "consts", ())
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        inner = jax.tree.leaves(
            list(equation.params.values()), is_leaf=_is_jaxpr
        )
        for found in filter(_is_jaxpr, inner):
            yield from _constants(found)


def _float_dtype(aval: Any) -> str | None:
    """Returns the dtype of a floating array. Scalars are often constants."""
    dtype = getattr(aval, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        return None
    return dtype.name if dtype.name in EPS and aval.size > 1 else None


def _equations(jaxpr: Any, outer: str) -> Iterator[tuple[Any, str]]:
    """Yields all equations with their lines, also those of inner jaxprs.

    An inner jaxpr may be cached by JAX, and then has no lines, or those of
    another call. Its equations have the line that calls it.
    """
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        line = frame_of(equation.source_info) or outer
        yield equation, line
        inner = jax.tree.leaves(
            list(equation.params.values()), is_leaf=_is_jaxpr
        )
        for found in filter(_is_jaxpr, inner):
            yield from _equations(found, line)


def _is_jaxpr(x: Any) -> bool:
    return hasattr(x, "eqns")


def _eps(inspection: Inspection) -> float:
    return inspection.eps
