"""Markdown tables of text columns followed by columns of numbers."""

from collections.abc import Iterable, Sequence

from common.rendering.tables import Column, Table, markdown_table


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, text: int = 1
) -> str:
    """Returns a Markdown table.

    Args:
        columns: the titles of the columns.
        rows: the cells of each row.
        text: how many columns, from the left, hold text.
    """
    aligned = [
        Column(title, "left" if i < text else "right")
        for i, title in enumerate(columns)
    ]
    return markdown_table(Table("", aligned, list(rows)))
