"""A row of the catalogue, and what measuring it gave."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

NOT_REPORTED = "not reported"
REPOSITORIES = {"equinox": "patrick-kidger/equinox", "flax": "google/flax"}

# What is left of a closed difference, as a share of its recorded size. Half a
# difference is neither still there nor gone: someone must look.
GONE = 1e-2

EXACT = 1e-4
"""Band of a number that follows from a formula, float32 rounding apart."""

SEEDED = 2e-2
"""Band of a number that follows from a seed; matmuls differ a little."""

ROUNDING = 0.9
"""Band of a rounding error: devices sum in their own order.

Over 20 seeds the three numbers that have it move by up to a factor of 2.3.
"""

RAISES = "1 if it raises"
"""The quantity of a row whose difference is an exception."""


class Cell(NamedTuple):
    """A part of the layer matrix in which a difference shows.

    Attributes:
        layer: the row of the layer table.
        dtypes: columns.
        quantities: what differs: `"output"`, `"gradients"`, `"buffers"`.
        options: hyper-parameters with which it does.
    """

    layer: str
    dtypes: tuple[str, ...]
    quantities: tuple[str, ...]
    options: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A known difference between a stock layer and what it should mean.

    Attributes:
        name: a slug; `_` for `-` makes it the demonstration's name.
        family: the module of this package that the row is in, and the module
            of `impl_<backend>.differences` that its demonstration is in.
        layer: the layer, or what holds the state.
        backend: the library whose stock layer it is.
        dtype: of the demonstration.
        quantity: what is measured; its unit, so to say.
        what: what differs, in one sentence.
        expected: the number that the meaning demands.
        measured: the number on record: of the formula in `origin`, else of
            equinox 0.13.8, flax 0.12.8 and jax 0.10.2, on the CPU.
        band: how far from `measured`, as a share of the recorded difference,
            a number still is the same difference.
        origin: the formula behind `measured`, or "measured".
        upstream: the issue that reports it, or "not reported".
        related: issues around it.
        ours: what this project does about it.
        cells: where the layer matrix meets it, and lets it pass.
    """

    name: str
    family: str
    layer: str
    backend: Literal["equinox", "flax"]
    dtype: Literal["bfloat16", "float32", "float64"] = "float32"
    quantity: str
    what: str
    expected: float = 0.0
    measured: float
    band: float = EXACT
    origin: str = "measured"
    upstream: str = NOT_REPORTED
    related: tuple[str, ...] = ()
    ours: str
    cells: tuple[Cell, ...] = ()

    @property
    def function(self) -> str:
        """The name of the demonstration."""
        return self.name.replace("-", "_")

    @property
    def module(self) -> str:
        """The module that the demonstration is in."""
        return f"impl_{self.backend}.differences.{self.family}"

    @property
    def size(self) -> float:
        """The recorded distance from what is expected."""
        return abs(self.measured - self.expected)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a demonstration returned.

    Attributes:
        row: the difference that was measured.
        value: the number.
    """

    row: Difference
    value: float

    @property
    def still_there(self) -> bool:
        """Whether the number is the one on record, within its band."""
        row = self.row
        return abs(self.value - row.measured) <= row.band * row.size

    @property
    def gone(self) -> bool:
        """Whether the library now agrees with the meaning."""
        return abs(self.value - self.row.expected) <= GONE * self.row.size

    @property
    def verdict(self) -> str:
        """`"still there"`, `"gone"`, or `"changed"` if it is neither."""
        if self.still_there:
            return "still there"
        return "gone" if self.gone else "changed"
