"""Markdown tables."""

from collections.abc import Iterable, Sequence


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, text: int = 1
) -> str:
    """Returns a Markdown table.

    Args:
        columns: their titles.
        rows: their cells.
        text: how many columns, from the left, hold text; the others numbers.
    """
    numbers = len(columns) - text
    lines = [columns, [":--"] * text + ["--:"] * numbers, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"
