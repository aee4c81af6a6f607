"""Finds the defaults of the libraries' layers that differ."""

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any, NamedTuple

from common.layers import Layer
from common.layers.recording import parameters
from common.registry import (
    find_constructors,
    find_options,
    find_public_layers,
)

LIBRARIES = ("equinox", "flax")
VARIADIC = ("args", "kwargs", "fns")
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
    def note(self) -> str:
        """What a reader must know of the default. Often empty."""
        return find_options(self.library).NOTES.get(self.dotted, "")

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


class UnequalDefaults(NamedTuple):
    """The defaults of a row's stock layers that are not the same.

    Attributes:
        differing: the arguments that mean the same in both libraries and have
            different defaults.
        only_equinox: the arguments with a default that Flax does not have.
        only_flax: the arguments with a default that Equinox does not have.
    """

    differing: list[Pair]
    only_equinox: list[Argument]
    only_flax: list[Argument]


def compare_defaults(row: type[Layer]) -> UnequalDefaults:
    """Compares the first stock layer of each library for a row.

    Arguments that do not change what a layer computes are left out. If a
    library has no stock layer for the row, there is nothing to compare.
    """
    equinox, flax = (_arguments(row, library) for library in LIBRARIES)
    if not (
        find_constructors("equinox")[row.name].stock
        and find_constructors("flax")[row.name].stock
    ):
        return UnequalDefaults([], [], [])
    return UnequalDefaults(
        [
            (ours, theirs)
            for name in equinox
            for ours in equinox[name]
            for theirs in flax.get(name, ())
            if ours.shown != theirs.shown
        ],
        *(
            [
                argument
                for name, several in first.items()
                for argument in several
                if name not in second and argument.default is not REQUIRED
            ]
            for first, second in ((equinox, flax), (flax, equinox))
        ),
    )


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
            "'Linear.use_bias'. Call `help` on the layer to list them."
        )
    return Argument(library, layer, name, known[name])


def pairs(rows: Iterable[type[Layer]]) -> set[tuple[str, str]]:
    """Returns the dotted names of all arguments whose defaults differ."""
    return {
        (equinox.dotted, flax.dotted)
        for row in rows
        for equinox, flax in compare_defaults(row).differing
    }


def _arguments(row: type[Layer], library: str) -> dict[str, list[Argument]]:
    """Returns the first stock layer's arguments, by the names of the row."""
    constructor = find_constructors(library)[row.name]
    if not constructor.stock:
        return {}
    layer = constructor.stock[0]
    renamed = constructor.renamed
    without = (*find_options(library).NOT_COMPARED, *VARIADIC)
    found: dict[str, list[Argument]] = {}
    known = _parameters(find_public_layers(library)[layer])
    for name, default in known.items():
        if name not in without:
            argument = Argument(library, layer, name, default)
            found.setdefault(renamed.get(name, name), []).append(argument)
    return found


def _parameters(layer: Any) -> dict[str, Any]:
    """Returns the default of each keyword of a public layer."""
    method = "__init__" if inspect.isclass(layer) else "__call__"
    return {
        name: parameter.default
        for name, parameter in parameters(layer, method).items()
    }
