"""The class of the layer table's rows, and how specs compose definitions."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import numpy as np
from jaxtyping import Array

from common.protocol import Arrays, Shaped, Variable

T = TypeVar("T")


def extent(default: Any) -> Any:
    """Declares a field that describes the input rather than the layer."""
    return dataclasses.field(default=default, metadata={"extent": True})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer(abc.ABC):
    """A row of the layer table: hyper-parameters, variables and a definition.

    A subclass is a frozen dataclass. Its fields are hyper-parameters with the
    same meaning in every library, and their defaults make up an example. Each
    library has one function that takes these fields as keywords and returns
    its layer; see `common.layers.constructors`.

    Attributes:
        name: the name of the row.
        family: the page of the documentation that shows the row.
    """

    name: ClassVar[str]
    family: ClassVar[str]

    @property
    @abc.abstractmethod
    def inputs(self) -> tuple[Shaped, ...]:
        """One example of each input, channels last."""

    def variables(self) -> dict[str, Variable]:
        """Returns every parameter and buffer by canonical name."""
        return {}

    @property
    def random(self) -> bool:
        """Whether training draws random numbers.

        A random mask depends on the dtype, so the definition of such a layer
        is evaluated in the dtype under test instead of in float64.
        """
        return False

    @property
    def zero_gradient(self) -> frozenset[str]:
        """Parameters whose exact gradient is zero.

        The computed gradient is round-off, which is measured relative to the
        largest gradient of the call.
        """
        return frozenset()

    @abc.abstractmethod
    def forward(
        self, params: Arrays, buffers: Arrays, *args: Any, **kwargs: Any
    ) -> tuple[Any, Arrays]:
        """Evaluates the definition on a batch.

        Args:
            params: trainable arrays by canonical name.
            buffers: the other arrays by canonical name.
            args: a batch of each input.
            kwargs: `key`, the random key of the call, and `training`.

        Returns:
            The outputs and the updated buffers.
        """

    def draw(
        self, rng: np.random.Generator, batch_size: int
    ) -> tuple[np.ndarray, ...]:
        """Draws a batch of each input from N(0, 1)."""
        return tuple(
            rng.normal(size=(batch_size, *shaped.shape))
            for shaped in self.inputs
        )

    def offset(self, *args: Any, **kwargs: Any) -> float:
        """Returns the largest |mean| that the layer subtracts from an input.

        The unit is the standard deviation. Rounding errors of the results grow
        with this number. It is 0 if the layer does not subtract a mean.

        Args:
            args: a batch of each input.
            kwargs: not used.
        """
        del args, kwargs
        return 0.0

    def options(self) -> dict[str, Any]:
        """Returns the fields that describe the layer, not its input."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if not field.metadata.get("extent")
        }


def named(layer: str, values: dict[str, T]) -> dict[str, T]:
    """Prefixes the names of a layer's variables or arrays with its path."""
    return {f"{layer}.{leaf}": x for leaf, x in values.items()}


def within(layer: str, arrays: Arrays) -> Arrays:
    """Selects the arrays of one layer, by leaf name."""
    prefix = f"{layer}."
    return {
        name.removeprefix(prefix): x
        for name, x in arrays.items()
        if name.startswith(prefix)
    }


def stateful(
    layer: Callable[..., tuple[Array, Arrays]],
    name: str,
    x: Array,
    params: Arrays,
    buffers: Arrays,
    **options: Any,
) -> tuple[Array, Arrays]:
    """Calls a definition with the parameters and buffers of one layer.

    Returns:
        The output, and the layer's updated buffers by canonical name.
    """
    y, new = layer(
        x, **within(name, params), **within(name, buffers), **options
    )
    return y, {f"{name}.{leaf}": buffer for leaf, buffer in new.items()}
