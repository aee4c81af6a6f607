"""Measures rows of the layer table; prints them, or returns them as JSON."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import rich.console
from rich.text import Text

from common import environment
from common.agreement import EPS
from common.comparison import layer_details
from common.comparison import layer_judge as judge
from common.differences import excused
from common.layers import Layer
from common.layers.constructors import Constructor
from common.layers.table import LAYERS
from common.registry import find_constructors
from common.rendering.files import to_json as dump
from common.rendering.tables import (
    Cell,
    Column,
    Section,
    Table,
    render_table,
)

LEGEND = """
layers: the library's public layers, and how it provides the row's definition:
a stock layer with other settings, a custom layer from impl_<library>.layers,
or a composition. Numbers: the largest error relative to the definition in
float64; u: units in the last place (ULPs) of the dtype; *: a known difference,
see the command `differences`; !: a mismatch.
""".strip()
MANY = 9
"""A longer list of names is abbreviated to its length."""
LIBRARIES = {"equinox": "Equinox", "flax": "Flax"}


class Measurement(NamedTuple):
    """The example of a row, measured in one library and one dtype.

    Attributes:
        row: the row.
        backend: `"equinox"` or `"flax"`.
        dtype: the dtype of parameters and inputs.
        findings: the error of every array.
    """

    row: type[Layer]
    backend: str
    dtype: str
    findings: list[judge.Finding]

    @property
    def known_differences(self) -> set[str]:
        """The quantities in which a known difference shows."""
        return excused(self.row(), self.backend, self.dtype)

    @property
    def mismatches(self) -> list[judge.Finding]:
        """The findings out of tolerance that no known difference explains."""
        return [
            finding
            for finding in self.findings
            if not finding.ok
            and finding.quantity not in self.known_differences
        ]

    @property
    def error(self) -> float:
        """The largest error of all arrays."""
        return max((finding.error for finding in self.findings), default=0.0)

    @property
    def ok(self) -> bool:
        """Whether there is no mismatch."""
        return not self.mismatches


def find_rows(part: str) -> list[str]:
    """Returns the rows whose names contain a text, in any case.

    The names are those of the row, of its family, and of the public layers
    that it covers in either library.
    """
    part = part.lower()
    columns = [find_constructors(backend) for backend in LIBRARIES]
    return [
        name
        for name, row in LAYERS.items()
        if any(
            part in candidate.lower()
            for candidate in (
                name,
                row.family,
                *(layer for column in columns for layer in column[name].stock),
            )
        )
    ]


def measure(
    names: Iterable[str],
    dtypes: Sequence[str],
    *,
    quick: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> list[Measurement]:
    """Measures the examples of some rows, in both libraries.

    Args:
        names: rows of the table.
        dtypes: the dtypes to measure them in.
        quick: see `layer_judge.measure`.
        tick: called after each measurement.
    """
    measured = []
    for name in names:
        for backend in LIBRARIES:
            for dtype in dtypes:
                row = LAYERS[name]
                findings = judge.measure(row(), backend, dtype, quick=quick)
                measured.append(Measurement(row, backend, dtype, findings))
                tick()
    return measured


def problems(measurement: Measurement) -> list[str]:
    """Describes every mismatch."""
    row, backend, dtype, _ = measurement
    return [
        f"{row.name} in {LIBRARIES[backend]}, {dtype}: {finding}"
        for finding in measurement.mismatches
    ]


def number(error: float, dtype: str) -> str:
    """Formats an error: in ULPs, except in float64."""
    if error == 0:
        return "0"
    if not math.isfinite(error):
        return "not finite"
    if dtype == "float64":
        return f"{error:.0e}"
    return f"{error / EPS[dtype]:.1f}u"


def table(measured: Sequence[Measurement]) -> rich.console.Group:
    """Returns a table for the terminal, readable at 80 columns."""
    rows: list[Sequence[Cell] | Section] = []
    family = ""
    for row in dict.fromkeys(one.row for one in measured):
        if row.family != family:
            family = row.family
            rows.append(Section(family.upper()))
        for i, (backend, title) in enumerate(LIBRARIES.items()):
            cells = [
                _cell(one)
                for one in measured
                if one.row is row and one.backend == backend
            ]
            rows.append(
                (
                    Text("" if i else row.name, style="bold"),
                    title,
                    _layers(find_constructors(backend)[row.name]),
                    *cells,
                )
            )
    # Names are never wrapped, so that they can be searched for.
    columns = (
        Column("row", wrap=False),
        Column("library", wrap=False),
        Column("layers", fill=True),
        *(
            Column(dtype, "right", wrap=False)
            for dtype in dict.fromkeys(one.dtype for one in measured)
        ),
    )
    return render_table(Table("Layers", columns, rows))


def _layers(constructor: Constructor) -> Text:
    names = ", ".join(constructor.stock)
    if len(constructor.stock) > MANY:
        names = f"{len(constructor.stock)} functions"
    if not names and constructor.kind == "custom":
        names = constructor.using
    text = Text(names)
    if constructor.kind != "stock":
        kind = f" ({constructor.kind})" if names else constructor.kind
        text.append(kind, style="dim")
    return text


def _cell(measurement: Measurement) -> Text:
    text = number(measurement.error, measurement.dtype)
    if not measurement.ok:
        return Text(f"{text} !", style="bold red")
    return Text(f"{text} *" if measurement.known_differences else text)


def to_json(measured: Sequence[Measurement]) -> str:
    """Returns rows and findings as JSON.

    Each library of a row has the fields of its `Constructor`, except the
    functions. `layer_details` describes the calls, arrays and defaults.
    """
    rows = [
        {
            "name": row.name,
            "family": row.family,
            "description": (row.__doc__ or "").splitlines()[0],
            "example": dataclasses.asdict(row()),
            **{
                backend: _constructor(find_constructors(backend)[row.name])
                for backend in LIBRARIES
            },
            **layer_details.to_json(layer_details.find_details(row)),
            "measured": [
                {
                    "backend": one.backend,
                    "dtype": one.dtype,
                    "ok": one.ok,
                    "known_differences": sorted(one.known_differences),
                    "findings": [_finding(found) for found in one.findings],
                }
                for one in measured
                if one.row is row
            ],
        }
        for row in dict.fromkeys(one.row for one in measured)
    ]
    return dump({"environment": environment.environment(), "layers": rows})


def _constructor(constructor: Constructor) -> dict[str, Any]:
    return {
        "stock": constructor.stock,
        "kind": constructor.kind,
        "using": constructor.using,
        "page": constructor.page or None,
    }


def _finding(finding: judge.Finding) -> dict[str, Any]:
    return {**dataclasses.asdict(finding), "ok": finding.ok}
