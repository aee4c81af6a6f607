"""Finds the defaults of the libraries' layers that differ."""

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any

from common.layers import Layer
from common.registry import find_constructors, find_public_layers

LIBRARIES = ("equinox", "flax")
# Arguments whose defaults are not compared.
NOT_COMPARED = {"self", "key", "rngs", "dtype", "param_dtype", "kwargs"}
REQUIRED = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument of a public layer of one library.

    Attributes:
        library: The name of the library's backend.
        layer: The name of the class or function.
        name: The keyword.
        default: The default, or `REQUIRED`.
    """

    library: str
    layer: str
    name: str
    default: Any

    @property
    def dotted(self) -> str:
        """The names of the layer and the argument."""
        return f"{self.layer}.{self.name}"

    @property
    def shown(self) -> str:
        """The default in Markdown."""
        if self.default is REQUIRED:
            return "required"
        return f"`{self._text()}`"

    @property
    def signature(self) -> str:
        """The layer with this argument, in Markdown."""
        value = "" if self.default is REQUIRED else f"={self._text()}"
        return f"`{self.layer}({self.name}{value})`"

    def _text(self) -> str:
        if callable(self.default):
            kind = type(self.default).__name__
            return getattr(self.default, "__name__", kind)
        return repr(self.default)


Pair = tuple[Argument, Argument]


def differing(row: type[Layer]) -> list[Pair]:
    """Returns the arguments of a row's stock layers whose defaults differ.

    Args:
        row: A row of the layer table. The first stock layer of each library
            is compared, and the arguments that mean the same in both.
    """
    equinox, flax = (_arguments(row, library) for library in LIBRARIES)
    return [
        (equinox[name], flax[name])
        for name in equinox
        if name in flax and equinox[name].shown != flax[name].shown
    ]


def find(library: str, dotted: str) -> Argument:
    """Returns an argument by the names of its layer and itself.

    Raises:
        ValueError: if there is no such layer, or it has no such argument.
    """
    layer, _, name = dotted.partition(".")
    public = find_public_layers(library)
    known = _parameters(public[layer]) if layer in public else {}
    if name not in known:
        raise ValueError(
            f"argument of a layer of {library}: got {dotted!r}, expected the "
            "name of a public layer and of an argument, as in "
            "'Linear.use_bias'. `help` of the layer lists its arguments."
        )
    return Argument(library, layer, name, known[name])


def pairs(rows: Iterable[type[Layer]]) -> set[tuple[str, str]]:
    """Returns the dotted names of all arguments whose defaults differ."""
    return {
        (equinox.dotted, flax.dotted)
        for row in rows
        for equinox, flax in differing(row)
    }


def _arguments(row: type[Layer], library: str) -> dict[str, Argument]:
    """Returns the first stock layer's arguments, by the names of the row."""
    constructor = find_constructors(library)[row.name]
    if not constructor.stock:
        return {}
    layer = constructor.stock[0]
    renamed = {theirs: ours for ours, theirs in constructor.keywords.items()}
    known = _parameters(find_public_layers(library)[layer])
    return {
        renamed.get(name, name): Argument(library, layer, name, default)
        for name, default in known.items()
        if name not in NOT_COMPARED
    }


def _parameters(layer: Any) -> dict[str, Any]:
    """Returns the default of each keyword of a public layer."""
    function = layer.__init__ if inspect.isclass(layer) else layer
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
    }
