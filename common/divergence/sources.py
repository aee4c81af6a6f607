"""Where an equation comes from: the lines behind it, innermost first."""

import os
import pathlib
import sysconfig
from collections.abc import Iterable
from typing import Any, NamedTuple

LIBRARIES = sysconfig.get_paths()["purelib"] + os.sep
STDLIB = sysconfig.get_paths()["stdlib"] + os.sep
# Lines of these say how a program is traced, not what the user wrote.
MACHINERY = (
    *(
        LIBRARIES + it + os.sep
        for it in ("jax", "jaxlib", "jaxtyping", "beartype")
    ),
    str(pathlib.Path(__file__).parent) + os.sep,
    "<",
)
# The calls that `with_paths` puts around those of the modules.
SCOPE = "_scoped.<locals>.__call__"


class Frame(NamedTuple):
    """A line of source.

    Attributes:
        file: its path.
        line: counted from 1.
        function: the method or function that it is in.
    """

    file: str
    line: int
    function: str

    @property
    def in_library(self) -> bool:
        """Whether it belongs to an installed package."""
        return self.file.startswith(LIBRARIES)

    @property
    def short(self) -> str:
        """The path as people say it: within its package, or its last part."""
        if self.in_library:
            return self.file.removeprefix(LIBRARIES)
        return os.path.basename(self.file)

    def __str__(self):
        return f"{self.short}:{self.line} {self.function}"


def frames(traceback: Any) -> tuple[Frame, ...]:
    """Returns the lines of a traceback that are not jax's own."""
    found = traceback.frames if traceback is not None else ()
    return tuple(
        Frame(it.file_name, it.line_num, _local(it.function_name))
        for it in found
        if not _is_machinery(it.file_name, it.function_name)
    )


def _local(function: str) -> str:
    """A qualified name without the functions it is defined in."""
    return function.rpartition("<locals>.")[2]


def _is_machinery(file: str, function: str) -> bool:
    if file.startswith(LIBRARIES):
        return file.startswith(MACHINERY)
    return file.startswith((*MACHINERY, STDLIB)) or function.endswith(SCOPE)


def shown(found: Iterable[Frame]) -> list[Frame]:
    """Picks what a reader wants: the innermost line, and the user's own."""
    found = list(found)
    if not found:
        return []
    users = [frame for frame in found if not frame.in_library]
    return list(dict.fromkeys([found[0], *users[:2]]))
