"""What a traced program says about itself: its narrowest dtype, its draws."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

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


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What is known about a program before it runs.

    Attributes:
        dtype: the name of the narrowest floating dtype of an array in it.
        cast: the source line at which an array first has this dtype.
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
    for equation in _equations(jaxpr):
        if equation.primitive.name in RANDOM and draw is None:
            draw = frame_of(equation.source_info)
        for variable in equation.outvars:
            found = _float_dtype(variable.aval)
            if found is not None and EPS[found] > EPS[dtype]:
                dtype, cast = found, frame_of(equation.source_info)
    return Inspection(dtype, cast, draw)


def _float_dtype(aval: Any) -> str | None:
    """Returns the dtype of a floating array. Scalars are often constants."""
    dtype = getattr(aval, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        return None
    return dtype.name if dtype.name in EPS and aval.size > 1 else None


def _equations(jaxpr: Any) -> Iterator[Any]:
    """Yields the equations of a jaxpr and of all those inside it."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield equation
        inner = jax.tree.leaves(
            list(equation.params.values()), is_leaf=_is_jaxpr
        )
        for found in filter(_is_jaxpr, inner):
            yield from _equations(found)


def _is_jaxpr(x: Any) -> bool:
    return hasattr(x, "eqns")
