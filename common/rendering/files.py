"""JSON files."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from common.files import write_text


def plain(value: Any) -> Any:
    """Returns a value made of the types that JSON has.

    Dataclasses and named tuples become dicts, arrays become lists, and an
    infinity or NaN becomes the string `"inf"`, `"-inf"` or `"nan"`.
    Anything else that JSON lacks, such as a path, becomes its `str`.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())  # pyright: ignore
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = value if isinstance(value, list | tuple) else sorted(value)
        return [plain(item) for item in items]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def to_json(value: Any) -> str:
    """Returns a value as JSON text; see `plain` for the conversions."""
    return json.dumps(plain(value), indent=1, allow_nan=False)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a value as a JSON file; see `plain` for the conversions."""
    write_text(path, to_json(value))
