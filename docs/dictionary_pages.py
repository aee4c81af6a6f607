"""Writes the dictionary, from the rows that the tests run."""

import dictionary_rows
from dictionary_rows import LIBRARIES, Row, Section
from tables import table

from common.comparison import layer_defaults


def pages() -> dict[str, str]:
    """Writes a section for each file of rows."""
    sections = dictionary_rows.sections()
    return {
        "dictionary.md": _contents(sections)
        + _overview(sections)
        + "".join(_section(section) for section in sections)
    }


def _contents(sections: list[Section]) -> str:
    """Links the sections, and counts the rows."""
    count = sum(len(section.rows) for section in sections)
    links = ", ".join(
        f"[{section.title}](#{section.name})" for section in sections
    )
    return f"The {count} rows are grouped: {links}.\n\n"


def _overview(sections: list[Section]) -> str:
    """Lists all rows in one table, which the search field filters too."""
    rows = [
        (f"[{row.want}](#{row.name})", *(f"`{code}`" for code in row.brief))
        for section in sections
        for row in section.rows
    ]
    columns = ("task", *LIBRARIES.values())
    text = table(columns, rows, text=len(columns))
    return (
        "::::{dropdown} All rows in one table\n:open:\n"
        f":class-container: dictionary-overview\n\n{text}::::\n\n"
    )


def _section(section: Section) -> str:
    text = f"({section.name})=\n## {section.title}\n\n{section.intro}\n"
    return text + "".join(_row(row) for row in section.rows)


def _row(row: Row) -> str:
    text = f"({row.name})=\n### {row.want}\n\n"
    text += "::::::{grid} 1 1 1 2\n:class-container: side-by-side\n"
    text += ":padding: 0\n\n"
    for library, title in LIBRARIES.items():
        text += ":::::{grid-item}\n```{code-block} python\n"
        text += f":caption: {title}\n\n{getattr(row, library).strip()}\n"
        text += "```\n:::::\n\n"
    return f"{text}::::::\n\n{row.note}\n{_defaults(row)}"


def _defaults(row: Row) -> str:
    """Lists the defaults that a row is about."""
    if not row.defaults:
        return ""
    cells = []
    for pair in row.defaults:
        arguments = (
            layer_defaults.find(library, dotted)
            for library, dotted in zip(LIBRARIES, pair, strict=True)
        )
        cells.append([argument.signature for argument in arguments])
    columns = [f"default in {title}" for title in LIBRARIES.values()]
    return table(columns, cells, text=2) + "\n"
