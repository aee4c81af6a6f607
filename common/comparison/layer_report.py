"""The layer table on the terminal and as JSON, measured here and now."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from common import environment
from common.agreement import EPS
from common.comparison import layer_judge as judge
from common.differences import excused
from common.layers import Layer
from common.layers._layer import Side
from common.layers.table import LAYERS, name_of

LEGEND = """
Its layers: a library's public ones, and how it gets to the meaning (own: from
impl_<library>.layers). A number: the largest difference from the definition in
float64; u: units in the last place of the dtype; *: known, see `differences`.
""".strip()
MANY = 9
"""From how many names on only their number is told."""
LIBRARIES = {"equinox": "Equinox", "flax": "Flax"}
ADDRESSES = {
    "equinox": "https://docs.kidger.site/equinox/api/nn/{page}/"
    "#equinox.nn.{name}",
    "flax": "https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/"
    "{page}.html#flax.nnx.{name}",
}


class Measurement(NamedTuple):
    """A row of the table, judged in one library and one dtype.

    Attributes:
        row: the row; its example was called.
        backend: `"equinox"` or `"flax"`.
        dtype: of parameters and inputs.
        findings: of every array.
    """

    row: type[Layer]
    backend: str
    dtype: str
    findings: list[judge.Finding]

    @property
    def known(self) -> set[str]:
        """The quantities that are known to differ."""
        return excused(self.row(), self.backend, self.dtype)

    @property
    def off(self) -> float:
        """The largest difference of all."""
        return max((it.off for it in self.findings), default=0.0)

    @property
    def ok(self) -> bool:
        """Whether all agrees but what is known to differ."""
        return all(it.ok or it.quantity in self.known for it in self.findings)


def measure(
    names: Iterable[str],
    dtypes: Sequence[str],
    *,
    quick: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> list[Measurement]:
    """Judges the examples of some rows, in both libraries.

    Args:
        names: rows of the table.
        dtypes: what to judge them in.
        quick: see `judge.measure`.
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
    """Names every array that is off and not known to be."""
    it = measurement
    return [
        f"{name_of(it.row)} in {LIBRARIES[it.backend]}, {it.dtype}: {finding}"
        for finding in it.findings
        if not finding.ok and finding.quantity not in it.known
    ]


def address(row: type[Layer], backend: str) -> str:
    """Returns the page of a layer in its library's documentation."""
    side: Side = getattr(row, backend)
    if not side.stock:
        return ""
    return ADDRESSES[backend].format(page=side.page, name=side.stock[0])


def number(off: float, dtype: str) -> str:
    """Returns a difference in words: in ULPs, but for float64."""
    if off == 0:
        return "0"
    if not math.isfinite(off):
        return "no float"
    if dtype == "float64":
        return f"{off:.0e}"
    return f"{off / EPS[dtype]:.1f}u"


def table(measured: Sequence[Measurement]) -> Table:
    """Returns a table for the terminal, readable at 80 columns."""
    dtypes = list(dict.fromkeys(it.dtype for it in measured))
    view = Table(
        title="Layers",
        box=box.HORIZONTALS,
        expand=True,
        pad_edge=False,
        collapse_padding=True,
    )
    # Wide enough for every name: a name that is broken cannot be searched.
    widest = max(len(name_of(it.row)) for it in measured)
    view.add_column("layer", min_width=widest, no_wrap=True)
    view.add_column("library", no_wrap=True)
    view.add_column("its layers", ratio=1)
    for dtype in dtypes:
        view.add_column(dtype, justify="right", no_wrap=True)
    family = ""
    for row in dict.fromkeys(it.row for it in measured):
        if row.family != family:
            family = row.family
            view.add_section()
            view.add_row(Text(family.upper(), style="dim"))
        for i, (backend, title) in enumerate(LIBRARIES.items()):
            cells = [
                _cell(it)
                for it in measured
                if it.row is row and it.backend == backend
            ]
            view.add_row(
                Text("" if i else name_of(row), style="bold"),
                title,
                _side(getattr(row, backend)),
                *cells,
            )
    return view


def _side(side: Side) -> Text:
    names = ", ".join(side.stock)
    if len(side.stock) > MANY:
        names = f"{len(side.stock)} functions"
    text = Text(names)
    if side.serves != "stock":
        own = side.by if side.serves == "own" and not side.stock else ""
        how = f" ({side.serves})" if side.stock or own else side.serves
        text.append(own)
        text.append(how, style="dim")
    return text


def _cell(measurement: Measurement) -> Text:
    text = number(measurement.off, measurement.dtype)
    if not measurement.ok:
        return Text(f"{text} !", style="bold red")
    return Text(f"{text} *" if measurement.known else text)


def to_json(measured: Sequence[Measurement]) -> str:
    """Returns rows and findings as JSON; what is no number is null."""

    def side(row: type[Layer], backend: str) -> dict[str, Any]:
        it: Side = getattr(row, backend)
        return {**it._asdict(), "url": address(row, backend) or None}

    def finding(it: judge.Finding) -> dict[str, Any]:
        values = dataclasses.asdict(it)
        if not math.isfinite(it.off):
            values["off"] = None
        return {**values, "ok": it.ok}

    rows = [
        {
            "name": name_of(row),
            "family": row.family,
            "meaning": (row.__doc__ or "").splitlines()[0],
            "example": dataclasses.asdict(row()),
            **{backend: side(row, backend) for backend in LIBRARIES},
            "measured": [
                {
                    "backend": it.backend,
                    "dtype": it.dtype,
                    "ok": it.ok,
                    "known": sorted(it.known),
                    "findings": [finding(f) for f in it.findings],
                }
                for it in measured
                if it.row is row
            ],
        }
        for row in dict.fromkeys(it.row for it in measured)
    ]
    return json.dumps(
        {"environment": environment.environment(), "layers": rows},
        indent=1,
        default=str,
    )
