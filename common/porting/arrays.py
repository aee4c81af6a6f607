"""What a plan knows of an array without holding it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from common.layouts import Role, Shape


@dataclasses.dataclass(frozen=True)
class ArrayInfo:
    """The shape, the dtype and the role of an array.

    Attributes:
        shape: in the array's own axis order.
        dtype: its name, such as `"float32"`.
        role: what the array is for; `None` if that is not known, as for the
            arrays of a file.
    """

    shape: Shape
    dtype: str
    role: Role | None = None

    @classmethod
    def of(cls, x: Any, role: Role | None = None) -> "ArrayInfo":
        """Describes an array, or a `jax.ShapeDtypeStruct`."""
        return cls(tuple(x.shape), str(x.dtype), role)


Infos = Mapping[str, ArrayInfo]
"""The arrays of one side of a plan, by dotted name."""
