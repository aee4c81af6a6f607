"""What a plan knows of an array without holding it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

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


def on_host(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arrays of the CPU as NumPy arrays, which share their memory.

    JAX would compile a program for each operation and shape. Arrays of other
    devices, random keys and arrays without values stay as they are.
    """
    return {
        name: np.asarray(x) if _is_on_host(x) else x
        for name, x in arrays.items()
    }


def _is_on_host(x: Any) -> bool:
    return (
        isinstance(x, jax.Array)
        and not isinstance(x, jax.core.Tracer)
        and not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        and x.is_fully_addressable
        and all(device.platform == "cpu" for device in x.devices())
    )
