"""Folds lines of long paths, so that they fit into a terminal."""

import shutil
from collections.abc import Iterable, Iterator

WIDTH = 80
"""The width of the lines of errors, in columns."""
INDENT = "    "


def terminal_width() -> int:
    """Returns the width of the terminal, or 80 if there is none."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


def fold(text: str, width: int = WIDTH) -> str:
    """Breaks lines at spaces, and long paths after a dot.

    Lines that fit stay as they are. What follows a break is indented.

    Args:
        text: one or several lines.
        width: the largest number of columns of a line.
    """
    return "\n".join(
        folded
        for line in text.split("\n")
        for folded in (_folded(line, width) if len(line) > width else [line])
    )


def fold_parts(parts: Iterable[str], width: int) -> list[str]:
    """Returns one line if it fits; otherwise each part begins a line.

    Args:
        parts: the text between the places at which it breaks best.
        width: the largest number of columns of a line.
    """
    parts = [part for part in parts if part]
    line = " ".join(parts)
    if len(line) <= width:
        return [line]
    lines = [parts[0], *(INDENT + part for part in parts[1:])]
    return fold("\n".join(lines), width).split("\n")


def _folded(line: str, width: int) -> list[str]:
    inner = line.lstrip(" ")
    start = line[: len(line) - len(inner)]
    room = max(width - len(start) - len(INDENT), 1)
    words = [
        piece for word in inner.split(" ") for piece in _pieces(word, room)
    ]
    lines, current = [], start
    for glue, piece in words:
        longer = current + glue * (current.strip() != "") + piece
        if len(longer) > width and current.strip():
            lines.append(current)
            longer = start + INDENT + piece
        current = longer
    return [*lines, current]


def _pieces(word: str, room: int) -> Iterator[tuple[str, str]]:
    """Yields a word, or its parts if it is too long, after what glues them."""
    glue = " "
    while len(word) > room:
        end = word.rfind(".", 0, room) + 1
        if not end:
            break
        yield glue, word[:end]
        glue, word = "", word[end:]
    yield glue, word
