"""Tables on a terminal and in Markdown."""

import pytest

from common.rendering.tables import (
    Column,
    Section,
    Table,
    markdown_table,
    print_text,
    render_table,
)

TABLE = Table(
    "Layers",
    (Column("layer", wrap=False), Column("error", "right"), "where"),
    (Section("DENSE"), ("Linear", "1.5", "[b]x[/b] | y")),
    notes=("A note in [brackets].",),
)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("lines", [False, True])
def test_terminal_table_shows_every_cell_within_the_width(width, lines):
    columns = (*TABLE.columns[:2], Column("where", fill=True))
    rows = [("Linear", "1.5", "[b]x[/b] " * 20)]
    table = Table("Layers", columns, rows, TABLE.notes, lines)
    text = print_text([render_table(table)], width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("Layers", "layer", "error", "Linear", "1.5", "in [brackets]"):
        assert word in text
    assert text.count("[b]x[/b]") == 20, "rich's markup must not be parsed"


def test_sections_are_rows_of_their_own():
    lines = print_text([render_table(TABLE)]).splitlines()
    assert [line.strip() for line in lines].count("DENSE") == 1
    assert "| **DENSE** |  |  |" in markdown_table(TABLE)


def test_markdown_table_escapes_separators():
    assert markdown_table(TABLE) == (
        "**Layers**\n\n"
        "| layer | error | where |\n"
        "| :-- | --: | :-- |\n"
        "| **DENSE** |  |  |\n"
        "| Linear | 1.5 | [b]x[/b] \\| y |\n"
        "\nA note in [brackets].\n\n"
    )
