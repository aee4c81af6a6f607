"""A row of the layer table, and how specs compose its functions."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Array

from common.protocol import Arrays, Shaped, Variable

Serves = Literal["stock", "settings", "own", "composition"]


class Side(NamedTuple):
    """What stands for a layer in one library.

    Attributes:
        stock: the public layers of the library that this row is about; none
            if it has no such layer.
        serves: the `"stock"` layer as it comes; the stock layer with
            `"settings"` other than its defaults; an `"own"` layer, from
            `impl_<library>.layers`; or a `"composition"` of the library's
            parts and `jax.numpy`, which the row's source shows.
        by: what serves, where it is not the stock layer: its name.
        page: the page of the library's documentation.
    """

    stock: tuple[str, ...] = ()
    serves: Serves = "stock"
    by: str = ""
    page: str = ""


def extent(default: Any) -> Any:
    """Declares a field that is a size of the input, not of the layer."""
    return dataclasses.field(default=default, metadata={"extent": True})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer(abc.ABC):
    """What a layer means: hyper-parameters, variables and a plain forward.

    A subclass is a row of the layer table. Its fields are hyper-parameters
    of the same meaning in both libraries, their defaults an example. The
    functions `impl_<library>.table.<module>.<name>` take the same fields as
    keywords and return the library's layer.

    Attributes:
        family: the page of the documentation that it is on.
        equinox: its counterpart in Equinox.
        flax: its counterpart in Flax NNX.
        same: keywords of the stock constructors that mean the same under
            another name, Equinox's to Flax's.
    """

    family: ClassVar[str]
    equinox: ClassVar[Side]
    flax: ClassVar[Side]
    same: ClassVar[Mapping[str, str]] = {}

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

        Then the truth is computed in the dtype on trial: masks depend on it.
        """
        return False

    @property
    def zero_gradient(self) -> frozenset[str]:
        """Parameters whose true gradient is zero, up to round-off."""
        return frozenset()

    @abc.abstractmethod
    def forward(
        self, params: Arrays, buffers: Arrays, *args: Any, **kwargs: Any
    ) -> tuple[Any, Arrays]:
        """Computes the batch's outputs and the updated buffers.

        Args:
            params: trainable arrays by canonical name.
            buffers: the other arrays by canonical name.
            args: a batch of each input.
            kwargs: `key`, for what the call draws, and `training`.
        """

    def draw(
        self, rng: np.random.Generator, batch_size: int
    ) -> tuple[np.ndarray, ...]:
        """Draws a batch of each input: floats from N(0, 1)."""
        return tuple(
            rng.normal(size=(batch_size, *it.shape)) for it in self.inputs
        )

    def options(self) -> dict[str, Any]:
        """Returns the hyper-parameters, without the extents of the input."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if not field.metadata.get("extent")
        }


def named(layer: str, variables: dict[str, Variable]) -> dict[str, Variable]:
    """Prefixes a layer's variables with its dotted path."""
    return {f"{layer}.{leaf}": v for leaf, v in variables.items()}


def within(layer: str, arrays: Arrays) -> Arrays:
    """Picks one layer's arrays, by leaf name."""
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
    """Calls a layer that has buffers on its own arrays.

    Returns:
        The layer's output and its updated buffers, by canonical name.
    """
    y, new = layer(
        x, **within(name, params), **within(name, buffers), **options
    )
    return y, {f"{name}.{leaf}": buffer for leaf, buffer in new.items()}
