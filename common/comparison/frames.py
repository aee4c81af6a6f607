"""The source line of the user that an operation comes from."""

import pathlib
from collections.abc import Iterable
from typing import Any

from common.divergence.sources import Frame, user_frames
from common.registry import IMPLS

HOME = pathlib.Path(__file__).parents[2]
PROJECT = tuple(str(HOME / name) + "/" for name in ("common", *IMPLS))


def frame_of(source_info: Any) -> str:
    """Returns the innermost line of the user, `""` if there is none."""
    return innermost(user_frames(source_info.traceback))


def innermost(frames: Iterable[Frame]) -> str:
    """Selects the innermost line of the user, or else of a library."""
    frames = [f for f in frames if not f.file.startswith(PROJECT)]
    own = [frame for frame in frames if not frame.in_library]
    return str((own or frames)[0]) if frames else ""
