"""Writes the pages of the layer table: constructors, defaults and errors."""

import inspect
import pathlib
import textwrap
from collections.abc import Sequence

from tables import table

from common.comparison import layer_details, layer_initial
from common.comparison import layer_judge as judge
from common.comparison import layer_report as report
from common.comparison.layer_details import Details
from common.differences import known_differences
from common.layers import Layer
from common.layers.constructors import Constructor
from common.layers.table import LAYERS
from common.registry import (
    find_constructors,
    find_options,
    find_public_layers,
)

ROOT = pathlib.Path(__file__).parents[1]
FAMILIES = tuple(dict.fromkeys(row.family for row in LAYERS.values()))
COLUMNS = {backend: find_constructors(backend) for backend in report.LIBRARIES}
PUBLIC = {backend: find_public_layers(backend) for backend in report.LIBRARIES}

Measured = Sequence[report.Measurement]


def pages() -> dict[str, str]:
    """Measures every row; returns the overview and the text of each family."""
    measured = report.measure(LAYERS, judge.DTYPES, quick=True)
    return {
        "layers.md": _overview(measured),
        "layers.json": report.to_json(measured),
        "layers_counts.md": _counts(),
        "layers_options.md": _options(),
        **{
            f"layers_{family}.md": "".join(
                _section(row, [one for one in measured if one.row is row])
                for row in LAYERS.values()
                if row.family == family
            )
            for family in FAMILIES
        },
    }


def _counts() -> str:
    """Counts the public layers of both libraries."""
    functions = len(COLUMNS["flax"]["activation"].stock)
    equinox, flax = (len(PUBLIC[backend]) for backend in report.LIBRARIES)
    return (
        f"The {len(LAYERS)} rows of the table cover the {equinox} public "
        f"layers of `equinox.nn`, and the {flax - functions} layers and "
        f"{functions} activation functions of `flax.nnx`.\n"
    )


def _options() -> str:
    """Lists the arguments that no comparison sets, by reason."""
    rows: dict[str, list[list[str]]] = {}
    for i, library in enumerate(report.LIBRARIES):
        options = find_options(library)
        both = options.NOT_COMPARED | options.NOT_SET
        for name, reason in both.items():
            cells = rows.setdefault(reason, [[], []])
            cells[i].append(f"`{name}`")
    return _titled(
        "Arguments that are not compared",
        table(
            ("reason", *report.LIBRARIES.values()),
            [
                (reason, *(", ".join(names) for names in cells))
                for reason, cells in rows.items()
            ],
            text=3,
        ),
    )


def _overview(measured: Measured) -> str:
    """Lists all rows, with the largest error of both libraries."""
    columns = ("row", "definition", *report.LIBRARIES.values(), "float64")
    rows = []
    for family in FAMILIES:
        for name, row in LAYERS.items():
            if row.family != family:
                continue
            error = max(
                one.error
                for one in measured
                if one.row is row and one.dtype == "float64"
            )
            rows.append(
                (
                    f"[`{name}`](#layer-{name.replace('_', '-')})",
                    _description(row),
                    *(_short(column[name]) for column in COLUMNS.values()),
                    report.number(error, "float64"),
                )
            )
    return table(columns, rows, text=4)


def _description(row: type[Layer]) -> str:
    text = inspect.getdoc(row) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


def _link(constructor: Constructor) -> str:
    """Links the stock layers to the library's documentation."""
    names = ", ".join(f"`{name}`" for name in constructor.stock)
    if len(constructor.stock) > report.MANY:
        names = f"{len(constructor.stock)} functions"
    return f"[{names}]({constructor.page})" if names else ""


def _short(constructor: Constructor) -> str:
    names = _link(constructor)
    if constructor.kind == "stock":
        return names
    kind: str = constructor.kind
    if kind == "custom":
        kind = f"custom `{constructor.using}`"
    return f"{names} ({kind})" if names else kind


# --- one row ----------------------------------------------------------------


def _section(row: type[Layer], measured: Measured) -> str:
    text = f"(layer-{row.name.replace('_', '-')})=\n## `{row.name}`\n\n"
    description, _, _ = (inspect.getdoc(row) or "").partition("Attributes:")
    text += f"{description.strip()}\n\n"
    text += table(
        tuple(report.LIBRARIES.values()),
        [tuple(_provided(row, backend) for backend in report.LIBRARIES)],
        text=2,
    )
    text += _sources(row)
    details = layer_details.find_details(row)
    text += _arrays(details)
    text += _defaults(details)
    text += _initial(details)
    text += _errors(measured)
    return text + _known_differences(row.name)


def _provided(row: type[Layer], backend: str) -> str:
    """Says how a library provides the row."""
    constructor = COLUMNS[backend][row.name]
    how = {
        "stock": "the stock layer with its defaults",
        "settings": "the stock layer with other settings",
        "custom": f"the custom layer "
        f"`impl_{backend}.layers.{constructor.using}`",
        "composition": f"a composition: {constructor.using}",
    }[constructor.kind]
    names = _link(constructor)
    return f"{names}: {how}" if names else f"no stock layer; {how}"


def _sources(row: type[Layer]) -> str:
    """Shows both constructors side by side."""
    text = "::::::{grid} 1 1 1 2\n:class-container: side-by-side\n"
    text += ":padding: 0\n\n"
    for backend, title in report.LIBRARIES.items():
        make = COLUMNS[backend][row.name].make
        source = textwrap.dedent(inspect.getsource(make))
        file = pathlib.Path(inspect.getsourcefile(make) or "")
        text += ":::::{grid-item}\n```{code-block} python\n"
        text += f':caption: "{title}: {file.relative_to(ROOT)}"\n\n'
        text += f"{source.rstrip()}\n```\n:::::\n\n"
    return text + "::::::\n\n"


def _arrays(details: Details) -> str:
    """Lists the arrays: the canonical name, and each library's own."""
    rows = []
    for array in details.arrays:
        cells = [f"`{array.name}` {array.shape}"]
        for library in report.LIBRARIES:
            native, arrow, steps = array.native[library].partition(" -> ")
            cells.append(f"`{native}`{arrow}{steps}")
        rows.append(cells)
    if not rows:
        return ""
    columns = ("array", *report.LIBRARIES.values())
    return _titled("Where the arrays are", table(columns, rows, text=3))


def _titled(title: str, text: str) -> str:
    """Puts a table under a title, which is no heading of the page."""
    return f"**{title}**\n\n{text}"


# --- defaults and initial values that differ --------------------------------


def _defaults(details: Details) -> str:
    """Lists the arguments of both stock layers whose defaults differ."""
    found = details.defaults
    if not any(found):
        return ""
    rows = [
        [next(layer_details.described([argument])) for argument in pair]
        for pair in found.differing
    ]
    text = table(tuple(report.LIBRARIES.values()), rows, text=2) * bool(rows)
    for title, several in zip(
        report.LIBRARIES.values(), found[1:], strict=True
    ):
        if several:
            listed = ", ".join(layer_details.described(several))
            text += f"Only in {title}: {listed}.\n\n"
    return _titled("Defaults that differ", text)


def _initial(details: Details) -> str:
    """Lists the arrays that the libraries fill with other values."""
    rows = [
        (f"`{one.array}`", one.equinox, one.flax)
        for one in details.initial
        if one.differs
    ]
    if not rows:
        return ""
    columns = ("array", *report.LIBRARIES.values())
    title = f"Initial values that differ, at {layer_initial.INPUTS} inputs"
    return _titled(title, table(columns, rows, text=3))


# --- errors -----------------------------------------------------------------


def _errors(measured: Measured) -> str:
    """Lists the largest error of each quantity, by library and dtype."""
    columns = ("largest error", *judge.QUANTITIES)
    rows = []
    for one in measured:
        cells = [f"{report.LIBRARIES[one.backend]}, {one.dtype}"]
        for quantity in judge.QUANTITIES:
            errors = [
                finding.error
                for finding in one.findings
                if finding.quantity == quantity
            ]
            text = report.number(max(errors), one.dtype) if errors else "none"
            known = quantity in one.known_differences
            known = known and max(errors, default=0.0) > 0
            cells.append(f"{text} (known)" if known else text)
        rows.append(cells)
    return table(columns, rows)


def _known_differences(name: str) -> str:
    """Links the known differences that explain an error of the row."""
    slugs = [
        row.name
        for row in known_differences()
        if any(excuse.layer == name for excuse in row.excuses)
    ]
    if not slugs:
        return ""
    links = ", ".join(f"[{slug}](#{slug})" for slug in slugs)
    return f"Known differences that explain these errors: {links}.\n\n"
