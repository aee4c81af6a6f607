"""How several arrays become one."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from common.layouts.steps import Shape, mismatch, require_axis


@dataclasses.dataclass(frozen=True)
class Concatenate:
    """Joins arrays along an axis; `Slice` takes them apart.

    Attributes:
        axis: counted from 0.
        sizes: the sizes of the parts along that axis.
    """

    axis: int
    sizes: tuple[int, ...]

    def output(self, *shapes: Shape) -> Shape:
        """Returns the shape of the joined array.

        Raises:
            ValueError: if the parts do not fit together.
        """
        for shape in shapes:
            require_axis(self, self.axis, shape)
        sizes = tuple(shape[self.axis] for shape in shapes)
        others = {(*s[: self.axis], *s[self.axis + 1 :]) for s in shapes}
        if sizes != self.sizes or len(others) != 1:
            raise mismatch(
                self,
                f"the shapes {shapes}",
                f"shapes of {self.sizes} along axis {self.axis}, and equal "
                "otherwise",
                "Pass all parts in order.",
            )
        before, after = shapes[0][: self.axis], shapes[0][self.axis + 1 :]
        return (*before, sum(sizes), *after)

    def apply(self, *parts: Any) -> Any:
        """Joins the arrays."""
        numpy = all(isinstance(x, np.ndarray) for x in parts)
        return (np if numpy else jnp).concatenate(parts, axis=self.axis)

    def __str__(self) -> str:
        return f"concatenate[axis {self.axis}]"


@dataclasses.dataclass(frozen=True)
class Stack:
    """Joins arrays along a new axis; `Index` takes them apart.

    Attributes:
        axis: counted from 0.
        size: the number of arrays.
    """

    axis: int
    size: int

    def output(self, *shapes: Shape) -> Shape:
        """Returns the shape of the joined array.

        Raises:
            ValueError: if the parts do not fit together.
        """
        if (
            len(shapes) != self.size
            or len(set(shapes)) != 1
            or not 0 <= self.axis <= len(shapes[0])
        ):
            raise mismatch(
                self,
                f"the shapes {shapes}",
                f"{self.size} equal shapes",
                "Pass all parts in order.",
            )
        before, after = shapes[0][: self.axis], shapes[0][self.axis :]
        return (*before, self.size, *after)

    def apply(self, *parts: Any) -> Any:
        """Joins the arrays."""
        numpy = all(isinstance(x, np.ndarray) for x in parts)
        return (np if numpy else jnp).stack(parts, axis=self.axis)

    def __str__(self) -> str:
        return f"stack[axis {self.axis}]"


Join = Concatenate | Stack
