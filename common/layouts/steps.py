"""The steps that a layout is composed of."""

import abc
import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

Shape = tuple[int, ...]


def mismatch(step: Any, got: Any, expected: str, fix: str) -> ValueError:
    """Makes the error for a shape that a step does not fit."""
    return ValueError(f"{step}: got {got}, expected {expected}. {fix}")


def require_axis(step: Any, axis: int, shape: Shape) -> None:
    """Checks that a shape has an axis."""
    if not 0 <= axis < len(shape):
        raise mismatch(
            step,
            f"the shape {shape}",
            f"one with an axis {axis}",
            "Count axes from 0.",
        )


@dataclasses.dataclass(frozen=True)
class Step(abc.ABC):
    """One rearrangement of an array. Axes are counted from 0."""

    @abc.abstractmethod
    def output(self, shape: Shape) -> Shape:
        """Returns the shape of the result.

        Raises:
            ValueError: if the step does not fit the shape.
        """

    @abc.abstractmethod
    def apply(self, x: Any) -> Any:
        """Rearranges an array."""

    @abc.abstractmethod
    def inverse(self, shape: Shape) -> "Step":
        """Returns the step that leads back to an array of this shape."""

    @abc.abstractmethod
    def lifted(self, leading: Shape) -> "Step":
        """Returns the same step under additional leading axes."""


@dataclasses.dataclass(frozen=True)
class Transpose(Step):
    """Permutes the axes, as `numpy.transpose` does.

    Attributes:
        axes: for each axis of the result, the axis that it was.
    """

    axes: tuple[int, ...]

    def output(self, shape):
        if sorted(self.axes) != list(range(len(shape))):
            raise mismatch(
                self,
                f"the shape {shape}",
                f"one of {len(self.axes)} axes, each permuted once",
                "Name every axis of the array once.",
            )
        return tuple(shape[axis] for axis in self.axes)

    def apply(self, x):
        return x.transpose(self.axes)

    def inverse(self, shape):
        del shape
        return Transpose(tuple(map(self.axes.index, range(len(self.axes)))))

    def lifted(self, leading):
        n = len(leading)
        return Transpose((*range(n), *(axis + n for axis in self.axes)))

    def __str__(self):
        if self.axes == (1, 0):
            return "transpose"
        return f"transpose{self.axes}"


@dataclasses.dataclass(frozen=True)
class Reshape(Step):
    """Gives an array another shape of as many elements, in C order."""

    shape: Shape

    def output(self, shape):
        if math.prod(shape) != math.prod(self.shape):
            raise mismatch(
                self,
                f"the shape {shape}",
                f"one of {math.prod(self.shape)} elements",
                "Name a shape of as many elements.",
            )
        return self.shape

    def apply(self, x):
        return x.reshape(self.shape)

    def inverse(self, shape):
        return Reshape(shape)

    def lifted(self, leading):
        return Reshape((*leading, *self.shape))

    def __str__(self):
        return f"reshape{self.shape}"


@dataclasses.dataclass(frozen=True)
class Flip(Step):
    """Reverses the order of the elements along some axes."""

    axes: tuple[int, ...]

    def output(self, shape):
        for axis in self.axes:
            require_axis(self, axis, shape)
        return shape

    def apply(self, x):
        flip = np.flip if isinstance(x, np.ndarray) else jnp.flip
        return flip(x, self.axes)

    def inverse(self, shape):
        del shape
        return self

    def lifted(self, leading):
        return Flip(tuple(axis + len(leading) for axis in self.axes))

    def __str__(self):
        return f"flip{self.axes}"


@dataclasses.dataclass(frozen=True)
class Slice(Step):
    """Takes a contiguous range of an axis; `Concatenate` puts it back."""

    axis: int
    start: int
    stop: int

    def output(self, shape):
        require_axis(self, self.axis, shape)
        if not 0 <= self.start < self.stop <= shape[self.axis]:
            raise mismatch(
                self,
                f"the shape {shape}",
                f"one of {self.stop} or more along axis {self.axis}",
                "Take a range within the array.",
            )
        size = self.stop - self.start
        return (*shape[: self.axis], size, *shape[self.axis + 1 :])

    def apply(self, x):
        return x[(slice(None),) * self.axis + (slice(self.start, self.stop),)]

    def inverse(self, shape):
        raise mismatch(
            self,
            f"a piece of an array of the shape {shape}",
            "a step that keeps every element",
            "Invert all pieces together with `common.layouts.invert`.",
        )

    def lifted(self, leading):
        return Slice(self.axis + len(leading), self.start, self.stop)

    def __str__(self):
        return f"split[{':, ' * self.axis}{self.start}:{self.stop}]"


@dataclasses.dataclass(frozen=True)
class Index(Step):
    """Takes one entry of an axis, which goes; `Stack` puts it back."""

    axis: int
    index: int

    def output(self, shape):
        require_axis(self, self.axis, shape)
        if not 0 <= self.index < shape[self.axis]:
            raise mismatch(
                self,
                f"the shape {shape}",
                f"one of more than {self.index} along axis {self.axis}",
                "Take an entry within the array.",
            )
        return (*shape[: self.axis], *shape[self.axis + 1 :])

    def apply(self, x):
        return x[(slice(None),) * self.axis + (self.index,)]

    def inverse(self, shape):
        return Slice(self.axis, self.index, self.index + 1).inverse(shape)

    def lifted(self, leading):
        return Index(self.axis + len(leading), self.index)

    def __str__(self):
        return f"index[{':, ' * self.axis}{self.index}]"


Pick = Slice | Index


@dataclasses.dataclass(frozen=True)
class Cast(Step):
    """Converts the dtype; the inverse converts it back.

    Attributes:
        source: the dtype's name before.
        target: the dtype's name after.
    """

    source: str
    target: str

    def output(self, shape):
        return shape

    def apply(self, x):
        return x.astype(self.target)

    def inverse(self, shape):
        del shape
        return Cast(self.target, self.source)

    def lifted(self, leading):
        del leading
        return self

    def __str__(self):
        return f"cast[{self.source} to {self.target}]"


@dataclasses.dataclass(frozen=True)
class KeyData(Step):
    """Turns typed random keys into their data, uint32.

    Attributes:
        impl: the name of the generator, such as `"threefry2x32"`.
    """

    impl: str

    def output(self, shape):
        return (*shape, *_key_shape(self.impl))

    def apply(self, x):
        return jr.key_data(x)

    def inverse(self, shape):
        del shape
        return WrapKeyData(self.impl)

    def lifted(self, leading):
        del leading
        return self

    def __str__(self):
        return f"key_data[{self.impl}]"


@dataclasses.dataclass(frozen=True)
class WrapKeyData(Step):
    """Inverts `KeyData`."""

    impl: str

    def output(self, shape):
        size = _key_shape(self.impl)
        if shape[len(shape) - len(size) :] != size:
            raise mismatch(
                self,
                f"the shape {shape}",
                f"one that ends in {size}",
                "Pass the data of keys of this generator.",
            )
        return shape[: len(shape) - len(size)]

    def apply(self, x):
        return jr.wrap_key_data(jnp.asarray(x, jnp.uint32), impl=self.impl)

    def inverse(self, shape):
        del shape
        return KeyData(self.impl)

    def lifted(self, leading):
        del leading
        return self

    def __str__(self):
        return f"wrap_key_data[{self.impl}]"


def _key_shape(impl: str) -> Shape:
    def data():
        return jr.key_data(jr.key(0, impl=impl))

    return jax.eval_shape(data).shape


def output_shape(shape: Shape, steps: Iterable[Step]) -> Shape:
    """Returns the shape of the result of several steps.

    Raises:
        ValueError: if a step does not fit the shape that it gets.
    """
    for step in steps:
        shape = step.output(shape)
    return shape
