"""Tables, printed on a terminal or written as Markdown."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import rich.box
import rich.console
import rich.table
import rich.text

Cell = str | rich.text.Text


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: the heading.
        align: `"left"` for text, `"right"` for numbers.
        wrap: whether a long cell may continue on the next line.
        width: the exact width on a terminal, if it is fixed.
        min_width: the smallest width on a terminal.
        fill: whether the column takes the width that the others leave.
    """

    title: str
    align: Literal["left", "right"] = "left"
    wrap: bool = True
    width: int | None = None
    min_width: int | None = None
    fill: bool = False


class Section(NamedTuple):
    """A heading between the rows of a table."""

    title: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that can be printed in more than one format.

    Attributes:
        title: printed above the table.
        columns: columns, or their titles.
        rows: the cells of each row, or a `Section` heading.
        notes: sentences printed below the table.
        lines: whether the terminal shows a line between rows.
    """

    title: str
    columns: Sequence[Column | str]
    rows: Sequence[Sequence[Cell] | Section]
    notes: Sequence[str] = ()
    lines: bool = False


def render_table(table: Table) -> rich.console.Group:
    """Returns a table and its notes for `rich.console.Console.print`."""
    columns = _columns(table)
    grid = rich.table.Table(
        title=rich.text.Text(table.title, "bold"),
        title_justify="left",
        box=rich.box.HORIZONTALS if table.lines else rich.box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=table.lines,
        show_lines=table.lines,
        expand=any(column.fill for column in columns),
    )
    for column in columns:
        grid.add_column(
            column.title,
            justify=column.align,
            no_wrap=not column.wrap,
            width=column.width,
            min_width=column.min_width,
            ratio=1 if column.fill else None,
        )
    for i, row in enumerate(table.rows):
        if isinstance(row, Section):
            if i:
                grid.add_row()
            grid.add_row(rich.text.Text(row.title, "dim"))
        else:
            grid.add_row(*map(_text, row))
    end = [] if table.lines else [rich.text.Text()]
    return rich.console.Group(grid, *end, *map(rich.text.Text, table.notes))


def markdown_table(table: Table) -> str:
    """Returns a table and its notes as Markdown, ending in an empty line."""
    title = f"**{table.title}**\n\n" if table.title else ""
    columns = _columns(table)
    rules = [":--" if c.align == "left" else "--:" for c in columns]
    lines: list[str] = []
    for cells in ([c.title for c in columns], rules, *table.rows):
        if isinstance(cells, Section):
            cells = [f"**{cells.title}**", *[""] * (len(columns) - 1)]
        lines.append(f"| {' | '.join(map(_escape, map(str, cells)))} |\n")
    notes = "".join(f"\n{note}\n" for note in table.notes)
    return f"{title}{''.join(lines)}{notes}\n"


def print_text(
    renderables: Iterable[rich.console.RenderableType], width: int = 80
) -> str:
    """Returns what rich prints at some width, without colors."""
    console = rich.console.Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(*renderables, sep="\n")
    return capture.get().rstrip()


def _columns(table: Table) -> list[Column]:
    return [Column(c) if isinstance(c, str) else c for c in table.columns]


def _text(cell: Cell) -> rich.text.Text:
    # Text is passed on, because a plain string is parsed for rich's markup.
    return rich.text.Text(cell) if isinstance(cell, str) else cell


def _escape(cell: str) -> str:
    """Escapes the character that separates the cells of a Markdown table."""
    return cell.replace("\\|", "|").replace("|", "\\|").replace("\n", " ")
