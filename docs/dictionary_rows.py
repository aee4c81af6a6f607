"""Reads the rows of the dictionary, and runs their snippets.

`dictionary/*.toml` holds one section per file. The page and the tests are
made from these rows. The last line of a snippet is an expression, and the
comment after it is what `print` shows for its value.
"""

import dataclasses
import pathlib
import re
import tomllib
from typing import Any

FOLDER = pathlib.Path(__file__).parent / "dictionary"
LIBRARIES = {"equinox": "Equinox", "flax": "Flax NNX"}
SECTIONS = (
    "modules",
    "state",
    "randomness",
    "transformations",
    "training",
    "modes",
    "saving",
    "defaults",
    "debugging",
    "sharding",
)
"""The files, in the order of the page."""
RAISES = "raises "


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One task, in both libraries.

    Attributes:
        want: What the reader wants to do, as a title.
        brief: What to look up, in Equinox and in Flax NNX: parts of the code
            below, in its order, with `...` for what is between them.
        equinox: The code in Equinox.
        flax: The code in Flax NNX.
        note: What differs, in Markdown.
        same: Whether both snippets have the same value.
        defaults: The constructor arguments whose defaults differ, as pairs of
            `layer.argument` in Equinox and in Flax.
    """

    want: str
    brief: tuple[str, str]
    equinox: str
    flax: str
    note: str
    same: bool = True
    defaults: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The anchor of the row."""
        return _anchor(self.want)

    def snippet(self, library: str) -> "Snippet":
        """Returns the code of one library."""
        return Snippet.parse(getattr(self, library))


@dataclasses.dataclass(frozen=True)
class Snippet:
    """Statements, an expression, and the value that the page states for it."""

    statements: str
    expression: str
    value: str

    @classmethod
    def parse(cls, code: str) -> "Snippet":
        """Splits code into its parts.

        Raises:
            ValueError: if the last line states no value.
        """
        *statements, last = code.strip().splitlines()
        expression, separator, value = last.partition("  # ")
        if not separator:
            raise ValueError(
                f"last line of a snippet: got {last!r}, expected an "
                "expression and its value. Write the value after two spaces "
                "and a number sign."
            )
        return cls("\n".join(statements), expression, value)

    def run(self, names: dict[str, Any]) -> str:
        """Runs the code and returns its value as the page would show it.

        Args:
            names: The names that the code may use; not changed.
        """
        scope = dict(names)
        if not self.value.startswith(RAISES):
            exec(self.statements, scope)
            return str(eval(self.expression, scope))
        try:
            exec(f"{self.statements}\n{self.expression}", scope)
        except Exception as error:
            return f"{RAISES}{type(error).__name__}"
        return "raises nothing"


@dataclasses.dataclass(frozen=True)
class Section:
    """The rows under one heading."""

    title: str
    intro: str
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        """The anchor of the section."""
        return _anchor("section " + self.title)


def _anchor(title: str) -> str:
    return "-".join(["dictionary", *re.findall(r"[a-z0-9]+", title.lower())])


def sections() -> list[Section]:
    """Reads all sections."""
    return [
        read((FOLDER / f"{name}.toml").read_text("utf-8")) for name in SECTIONS
    ]


def read(text: str) -> Section:
    """Reads one section."""
    values = tomllib.loads(text)
    rows = [
        Row(
            **row
            | {"brief": tuple(row["brief"])}
            | {"defaults": tuple(map(tuple, row.get("defaults", ())))}
        )
        for row in values["row"]
    ]
    return Section(values["title"], values["intro"], tuple(rows))


def rows() -> list[Row]:
    """Reads all rows."""
    return [row for section in sections() for row in section.rows]
