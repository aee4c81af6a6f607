"""Whether a divergence names the source line of a planted fault."""

import ast
import functools
import pathlib
import re
from collections.abc import Iterable, Iterator

from common.divergence import Diff
from common.divergence.sources import Frame, select_frames
from tests.pairs.bank import MUTANTS, Fault
from tests.pairs.negatives import Negative

HERE = pathlib.Path(__file__).parent
SIMPLE = (
    ast.Assign,
    ast.AnnAssign,
    ast.AugAssign,
    ast.Expr,
    ast.Return,
    ast.Assert,
)


def squeezed(text: str) -> str:
    """Returns text without spaces, line breaks and trailing commas."""
    return "".join(text.split()).replace(",)", ")").replace(",]", "]")


@functools.cache
def statements(path: str) -> list[tuple[int, int, str]]:
    """Returns the first line, the last line and the text of statements."""
    source = pathlib.Path(path).read_text()
    lines = source.splitlines()
    return [
        (node.lineno, end, squeezed("".join(lines[node.lineno - 1 : end])))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, SIMPLE) and (end := node.end_lineno or 0)
    ]


def statement(path: str, line: int) -> str:
    """Returns the statement that a line belongs to, without spaces."""
    found = [
        (end - start, text)
        for start, end, text in statements(path)
        if start <= line <= end
    ]
    return min(found)[1] if found else ""


def shown_frames(diff: Diff, origins: int | None = None) -> Iterator[Frame]:
    """Returns the lines that `diff` shows of its first origins."""
    for origin in diff.origins[:origins]:
        for node in (origin.left, origin.right):
            if node is not None:
                yield from select_frames(node.frames)


def names(
    diff: Diff, fault: Fault | Negative, origins: int | None = None
) -> bool:
    """Tells whether `diff` shows the line of a fault.

    Args:
        diff: what was found.
        fault: the mistake.
        origins: how many of the earliest divergences count; all by default.
    """
    return is_at(
        fault,
        (
            (frame.file, frame.line)
            for frame in shown_frames(diff, origins)
            if not frame.in_library
        ),
    )


def is_at(fault: Fault | Negative, lines: Iterable[tuple[str, int]]) -> bool:
    """Tells whether one of some lines is that of a fault."""
    return any(
        squeezed(text) in statement(path, line)
        for path, line in lines
        for text in fault.texts
    )


def is_named(fault: Fault | Negative, text: str) -> bool:
    """Tells whether a text such as `net.py:12 Net.__call__` names a fault."""
    folders = (MUTANTS, HERE, HERE / "held_out")
    return is_at(
        fault,
        (
            (str(folder / name), int(line))
            for name, line in re.findall(r"(\w+\.py):(\d+)", text)
            for folder in folders
            if (folder / name).is_file()
        ),
    )
