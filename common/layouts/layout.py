"""The layout of one array: its sources, and the steps that make it."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from common.layouts.joins import Join
from common.layouts.steps import Shape, Step, output_shape


@dataclasses.dataclass(frozen=True)
class Source:
    """An array that a layout takes.

    Attributes:
        name: the key under which `Layout.apply` finds it.
        shape: the shape that it must have.
    """

    name: str
    shape: Shape

    def __str__(self) -> str:
        return f"{self.name} {self.shape}".lstrip()


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one array is made from one or several source arrays.

    Shapes are checked when a layout is made, and again when it is applied,
    before any array is touched.

    Attributes:
        inputs: the source, or the parts that `join` makes one array of.
        join: how several parts become one array.
        steps: what is done to that array, in order.

    Raises:
        ValueError: if a step does not fit the shape that it gets.
    """

    inputs: tuple["Source | Layout", ...]
    join: Join | None = None
    steps: tuple[Step, ...] = ()

    def __post_init__(self):
        if self.join is None and len(self.inputs) != 1:
            raise ValueError(
                f"layout: got {len(self.inputs)} inputs and no join, expected "
                "one input. Pass `Concatenate` or `Stack` as `join`."
            )
        _ = self.shape

    @classmethod
    def of(cls, name: str, shape: Iterable[int], *steps: Step) -> "Layout":
        """Returns the layout that applies steps to one source."""
        return cls((Source(name, tuple(shape)),), steps=steps)

    @functools.cached_property
    def joined_shape(self) -> Shape:
        """The shape of the array that the steps are applied to."""
        shapes = [part.shape for part in self.inputs]
        return shapes[0] if self.join is None else self.join.output(*shapes)

    @functools.cached_property
    def shape(self) -> Shape:
        """The shape of the array that the layout makes."""
        return output_shape(self.joined_shape, self.steps)

    @functools.cached_property
    def sources(self) -> tuple[Source, ...]:
        """The arrays that the layout takes, each of them once."""
        found: dict[Source, None] = {}
        for part in self.inputs:
            one = (part,) if isinstance(part, Source) else part.sources
            found |= dict.fromkeys(one)
        return tuple(found)

    def then(self, *steps: Step) -> "Layout":
        """Returns the layout that applies more steps at the end."""
        return dataclasses.replace(self, steps=self.steps + steps)

    def apply(self, arrays: Mapping[str, Any]) -> Any:
        """Makes the array.

        Args:
            arrays: the sources by name: NumPy or JAX arrays, tracers, or
                `jax.ShapeDtypeStruct`s, which give a `ShapeDtypeStruct`.

        Raises:
            ValueError: if a source has another shape than the layout expects.
        """
        for source in self.sources:
            shape = tuple(arrays[source.name].shape)
            if shape != source.shape:
                raise ValueError(
                    f"layout of {source.name!r}: got the shape {shape}, "
                    f"expected {source.shape}. Pass an array of that shape."
                )
        given = {source.name: arrays[source.name] for source in self.sources}
        if any(isinstance(x, jax.ShapeDtypeStruct) for x in given.values()):
            return jax.eval_shape(self._apply, given)
        return self._apply(given)

    def _apply(self, arrays):
        parts = [
            arrays[part.name]
            if isinstance(part, Source)
            else part._apply(arrays)
            for part in self.inputs
        ]
        x = parts[0] if self.join is None else self.join.apply(*parts)
        for step in self.steps:
            x = step.apply(x)
        return x

    def __call__(self, x: Any) -> Any:
        """Makes the array from the only source.

        Raises:
            ValueError: if the layout takes several sources, or if the array
                has another shape than the layout expects.
        """
        if len(self.sources) != 1:
            raise ValueError(
                f"layout {self}: got one array, expected "
                f"{len(self.sources)}. Pass them by name to `apply`."
            )
        return self.apply({self.sources[0].name: x})

    def substitute(self, layouts: Mapping[str, "Layout"]) -> "Layout":
        """Replaces each source by the layout of its name, if there is one."""
        inputs = tuple(
            layouts.get(part.name, part)
            if isinstance(part, Source)
            else part.substitute(layouts)
            for part in self.inputs
        )
        return dataclasses.replace(self, inputs=inputs)

    def __str__(self) -> str:
        parts = [str(part) for part in self.inputs]
        start = parts[0]
        if self.join is not None:
            start = f"[{'; '.join(parts)}] -> {self.join}"
        return " -> ".join([start, *map(str, self.steps)])
