"""Writes the layer table's pages: each row's sources, defaults, figures."""

import importlib
import inspect
import textwrap
from collections.abc import Sequence
from typing import Any

from tables import table

from common.comparison import layer_judge as judge
from common.comparison import layer_report as report
from common.differences import known_differences
from common.layers import Layer
from common.layers.table import LAYERS, name_of, stem

FAMILIES = tuple(dict.fromkeys(row.family for row in LAYERS.values()))
# What a default is not a choice of meaning in.
NOT_COMPARED = {"self", "key", "rngs", "dtype", "param_dtype", "kwargs"}

Measured = Sequence[report.Measurement]


def pages() -> dict[str, str]:
    """Measures every row; returns the overview and a text a family."""
    measured = report.measure(LAYERS, judge.DTYPES, quick=True)
    return {
        "layers.md": _overview(measured),
        "layers_counts.md": _counts(),
        **{
            f"layers_{family}.md": "".join(
                _section(row, [it for it in measured if it.row is row])
                for row in LAYERS.values()
                if row.family == family
            )
            for family in FAMILIES
        },
    }


def _counts() -> str:
    """Counts the public layers of both libraries."""
    functions = len(LAYERS["activation"].flax.stock)
    equinox, flax = (
        len(_public(backend).public_layers()) for backend in report.LIBRARIES
    )
    return (
        f"{equinox} public layers of `equinox.nn`, {flax - functions} of "
        f"`flax.nnx` and its {functions} activation functions stand in "
        f"{len(LAYERS)} rows.\n"
    )


def _overview(measured: Measured) -> str:
    """Lists all rows, with the worst figure of each library."""
    columns = ("row", "meaning", *report.LIBRARIES.values(), "float64")
    rows = []
    for family in FAMILIES:
        for name, row in LAYERS.items():
            if row.family != family:
                continue
            worst = max(
                it.off
                for it in measured
                if it.row is row and it.dtype == "float64"
            )
            rows.append(
                (
                    f"[`{name}`](#layer-{name.replace('_', '-')})",
                    _meaning(row),
                    *(_side(row, backend) for backend in report.LIBRARIES),
                    report.number(worst, "float64"),
                )
            )
    return table(columns, rows, text=4)


def _meaning(row: type[Layer]) -> str:
    text = inspect.getdoc(row) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


def _side(row: type[Layer], backend: str) -> str:
    side = getattr(row, backend)
    names = ", ".join(f"`{name}`" for name in side.stock)
    if len(side.stock) > report.MANY:
        names = f"{len(side.stock)} functions"
    if side.stock:
        names = f"[{names}]({report.address(row, backend)})"
    if side.serves == "stock":
        return names
    by = f" `{side.by}`" if side.serves == "own" else ""
    return f"{names} ({side.serves}{by})" if names else f"{side.serves}{by}"


# --- a row ------------------------------------------------------------------


def _section(row: type[Layer], measured: Measured) -> str:
    name = name_of(row)
    text = f"(layer-{name.replace('_', '-')})=\n## `{name}`\n\n"
    meaning, _, _ = (inspect.getdoc(row) or "").partition("Attributes:")
    text += f"{meaning.strip()}\n\n"
    text += table(
        tuple(report.LIBRARIES.values()),
        [tuple(_served(row, backend) for backend in report.LIBRARIES)],
        text=2,
    )
    text += _sources(row)
    text += _variables(row)
    text += _defaults(row)
    text += _figures(measured)
    return text + _known(name)


def _served(row: type[Layer], backend: str) -> str:
    side = getattr(row, backend)
    how = {
        "stock": "the stock layer, as it comes",
        "settings": "the stock layer, with settings",
        "own": f"own: `impl_{backend}.layers.{side.by}`",
        "composition": f"a composition: {side.by}",
    }[side.serves]
    names = ", ".join(f"`{name}`" for name in side.stock)
    if not names:
        return f"none in stock; {how}"
    return f"[{names}]({report.address(row, backend)}): {how}"


def _sources(row: type[Layer]) -> str:
    """Shows both constructors side by side."""
    text = "::::::{grid} 1 1 1 2\n:class-container: side-by-side\n"
    text += ":padding: 0\n\n"
    for backend, title in report.LIBRARIES.items():
        source = textwrap.dedent(inspect.getsource(_maker(row, backend)))
        where = f"impl_{backend}/table/{stem(row())}.py"
        text += ":::::{grid-item}\n```{code-block} python\n"
        text += f':caption: "{title}: {where}"\n\n{source.rstrip()}\n```\n'
        text += ":::::\n\n"
    return text + "::::::\n\n"


def _maker(row: type[Layer], backend: str) -> Any:
    module = f"impl_{backend}.table.{stem(row())}"
    return getattr(importlib.import_module(module), name_of(row))


def _variables(row: type[Layer]) -> str:
    """Lists the canonical arrays of the example."""
    variables = row().variables()
    if not variables:
        return ""
    cells = (
        f"`{name}` {variable.shape}"
        + ("" if variable.trainable else " (buffer)")
        for name, variable in variables.items()
    )
    return f"Arrays of `{row()!r}`: {', '.join(cells)}.\n\n"


# --- defaults that differ ---------------------------------------------------


def _public(backend: str) -> Any:
    return importlib.import_module(f"impl_{backend}.table.public")


def _parameters(row: type[Layer], backend: str) -> dict[str, Any]:
    """The defaults of the first stock layer, by keyword."""
    side = getattr(row, backend)
    if not side.stock:
        return {}
    it = _public(backend).find(side.stock[0])
    function = it.__init__ if inspect.isclass(it) else it
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in NOT_COMPARED
    }


def _defaults(row: type[Layer]) -> str:
    equinox, flax = (_parameters(row, it) for it in report.LIBRARIES)
    pairs = {name: name for name in equinox if name in flax} | dict(row.same)
    rows = [
        (
            f"`{left}`",
            _default(equinox[left]),
            f"`{right}`",
            _default(flax[right]),
        )
        for left, right in pairs.items()
        if left in equinox
        and right in flax
        and _default(equinox[left]) != _default(flax[right])
    ]
    if not rows:
        return ""
    columns = ("Equinox", "default", "Flax NNX", "default")
    return "Defaults that differ:\n\n" + table(columns, rows, text=4)


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "none: must be given"
    if callable(value):
        return f"`{getattr(value, '__name__', type(value).__name__)}`"
    return f"`{value!r}`"


# --- figures ----------------------------------------------------------------


def _figures(measured: Measured) -> str:
    """The worst figure of each quantity, by library and dtype."""
    columns = ("largest difference", *judge.QUANTITIES)
    rows = []
    for it in measured:
        cells = [f"{report.LIBRARIES[it.backend]}, {it.dtype}"]
        for quantity in judge.QUANTITIES:
            offs = [f.off for f in it.findings if f.quantity == quantity]
            text = report.number(max(offs), it.dtype) if offs else "none"
            known = quantity in it.known and max(offs, default=0.0) > 0
            cells.append(f"{text} (known)" if known else text)
        rows.append(cells)
    return table(columns, rows)


def _known(name: str) -> str:
    rows = [
        row.name
        for row in known_differences()
        if any(excuse.layer == name for excuse in row.excuses)
    ]
    if not rows:
        return ""
    links = ", ".join(f"[{it}](#{it})" for it in rows)
    return f"Known differences that the matrix lets pass here: {links}.\n\n"
