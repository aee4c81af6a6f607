"""Finds the source lines and the module that an equation comes from."""

import os
import pathlib
import re
import sysconfig
from collections.abc import Iterable
from traceback import walk_tb
from typing import Any, NamedTuple

LIBRARIES = sysconfig.get_paths()["purelib"] + os.sep
STDLIB = sysconfig.get_paths()["stdlib"] + os.sep
HERE = pathlib.Path(__file__).parents[1]
# Frames in these files belong to the tracing machinery, not to the user.
MACHINERY = (
    *(
        LIBRARIES + package + os.sep
        for package in ("jax", "jaxlib", "jaxtyping", "beartype")
    ),
    *(str(HERE / room) + os.sep for room in ("divergence", "alignment")),
    str(HERE / "native") + os.sep,
    *map(str, HERE.parent.glob("impl_*/calling.py")),
    "<",
)
# The wrapper that records the path of a module in the name stack.
SCOPE = "_scoped.<locals>.__call__"
# A path that such a wrapper left in the name stack.
PATH = re.compile(r"@([^/()]+)")
MAX_USER_FRAMES = 2


class Frame(NamedTuple):
    """A line of source code.

    Attributes:
        file: the path of the file.
        line: the line number, counted from 1.
        function: the method or function that the line is in.
    """

    file: str
    line: int
    function: str

    @property
    def in_library(self) -> bool:
        """Whether the file belongs to an installed package."""
        return self.file.startswith(LIBRARIES)

    @property
    def short(self) -> str:
        """The path within an installed package, or the file's name."""
        if self.in_library:
            return self.file.removeprefix(LIBRARIES)
        return os.path.basename(self.file)

    def __str__(self):
        return f"{self.short}:{self.line} {self.function}"


def user_frames(traceback: Any) -> tuple[Frame, ...]:
    """Returns the lines of a traceback, without those of JAX itself."""
    return tuple(
        Frame(
            frame.file_name, frame.line_num, _short_name(frame.function_name)
        )
        for frame in (traceback.frames if traceback is not None else ())
        if not _is_machinery(frame.file_name, frame.function_name)
    )


def error_frames(error: BaseException) -> tuple[Frame, ...]:
    """Returns the lines at which an error was raised, the innermost first."""
    codes = [
        (frame.f_code, line) for frame, line in walk_tb(error.__traceback__)
    ]
    return tuple(
        Frame(code.co_filename, line, _short_name(code.co_qualname))
        for code, line in reversed(codes)
        if not _is_machinery(code.co_filename, code.co_qualname)
    )


def select_frames(found: Iterable[Frame]) -> list[Frame]:
    """Selects the innermost line and the innermost lines of the user."""
    found = list(found)
    if not found:
        return []
    users = [frame for frame in found if not frame.in_library]
    return list(dict.fromkeys([found[0], *users[:MAX_USER_FRAMES]]))


def module_path(scope: str) -> str:
    """Returns the path of the innermost module in a name stack, or `""`."""
    found = PATH.findall(scope)
    return found[-1] if found else ""


def _short_name(function: str) -> str:
    """Removes the enclosing functions from a qualified name."""
    return function.rpartition("<locals>.")[2]


def _is_machinery(file: str, function: str) -> bool:
    if file.startswith(LIBRARIES):
        return file.startswith(MACHINERY)
    return file.startswith((*MACHINERY, STDLIB)) or function.endswith(SCOPE)
