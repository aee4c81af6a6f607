"""What a reader must know to use a row of the layer table in either library.

These are the calls that construct the layer, the names and shapes of its
arrays, the defaults that differ, and the initial values that differ.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from rich.text import Text

from common.comparison.layer_calls import constructions
from common.comparison.layer_defaults import (
    Argument,
    UnequalDefaults,
    compare_defaults,
)
from common.comparison.layer_initial import (
    INPUTS,
    Initial,
    initial_values,
)
from common.layers import Layer
from common.layouts import Layout
from common.registry import find_constructors, find_counterpart

LIBRARIES = {"equinox": "Equinox", "flax": "Flax"}
PRIMES = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43)
GROUPS = 53  # no axis has this number
SIZES = (" size", "_size", "features", "channels", "_heads", "_embeddings")
SIZES += (" rank",)
"""How the names of the fields end that are sizes of arrays."""


class NativeArray(NamedTuple):
    """How the libraries store a canonical array.

    Attributes:
        name: the canonical name.
        shape: the canonical shape, in words where it has the size of a field.
        native: the library's own arrays with their shapes, and the steps to
            the canonical array, by library.
    """

    name: str
    shape: str
    native: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Details:
    """What a reader must know of a row.

    Attributes:
        row: the row.
        constructions: the calls that construct its example, by library.
        arrays: the layouts of its arrays.
        defaults: the defaults of its stock layers that differ.
        initial: how its arrays are filled, with 100 inputs.
    """

    row: type[Layer]
    constructions: dict[str, list[str]]
    arrays: list[NativeArray]
    defaults: UnequalDefaults
    initial: list[Initial]


@functools.cache
def find_details(row: type[Layer]) -> Details:
    """Constructs the layers of a row in both libraries, and describes them."""
    example = row()
    return Details(
        row,
        {library: constructions(example, library) for library in LIBRARIES},
        native_arrays(row),
        compare_defaults(row),
        initial_values(row),
    )


def native_arrays(row: type[Layer]) -> list[NativeArray]:
    """Returns how each array of a row is stored in both libraries."""
    layer, sizes = _with_prime_sizes(row)
    layouts: dict[str, Mapping[str, Layout]] = {
        library: find_counterpart(library, layer).native_arrays()
        for library in LIBRARIES
    }
    return [
        NativeArray(
            name,
            _named(str(tuple(variable.shape)), sizes),
            {
                library: _named(str(layouts[library][name]), sizes)
                for library in LIBRARIES
            },
        )
        for name, variable in layer.variables().items()
    ]


def _with_prime_sizes(row: type[Layer]) -> tuple[Layer, dict[int, str]]:
    """Returns a layer whose sizes are primes, and what each number means.

    A number in a shape then tells which sizes it is made of. Sizes that must
    be divisible are primes times the number of groups.
    """
    example = row()
    options = example.options()
    primes = iter(PRIMES)
    fields: dict[str, Any] = {}
    words: dict[int, str] = {}

    def size(word: str, factor: int = 1) -> int:
        prime = next(primes)
        words[prime * factor] = word
        if factor == GROUPS:
            words[prime] = f"{word}/groups"
        return prime * factor

    grouped = type(options.get("groups")) is int
    if grouped:
        fields["groups"] = GROUPS
        words[GROUPS] = "groups"
    if "num_kv_heads" in options:
        fields["num_kv_heads"] = size("num_kv_heads")
        fields["num_heads"] = GROUPS * fields["num_kv_heads"]
        words[fields["num_heads"]] = "num_heads"
    for name, value in options.items():
        if name == "kernel_size":
            fields[name] = tuple(size("kernel") for _ in value)
        elif name == "mask" and isinstance(value, tuple):
            fields[name] = None  # a mask of another kernel
        elif type(value) is int and f" {name}".endswith(SIZES):
            if name not in fields:
                # A rotary embedding rotates pairs of features.
                fields[name] = size(
                    name, GROUPS if grouped else 1 + ("theta" in options)
                )
    for (a, first), (b, second) in itertools.combinations(words.items(), 2):
        words.setdefault(a * b, f"{first}*{second}")
    for factor in (2, 3, 4):
        for number, word in list(words.items()):
            if word == "hidden_size":
                words.setdefault(factor * number, f"{factor}*{word}")
    return row(**fields), words


def _named(text: str, words: Mapping[int, str]) -> str:
    def word(match: re.Match[str]) -> str:
        return words.get(int(match[0]), match[0])

    return re.sub(r"(?<![\w.])\d+(?![\w.])", word, text)


# --- how they are shown ------------------------------------------------------


def to_json(details: Details) -> dict[str, Any]:
    """Returns the details of a row as JSON values."""
    defaults = details.defaults
    return {
        "constructions": details.constructions,
        "arrays": [array._asdict() for array in details.arrays],
        "defaults": {
            "differing": [
                {
                    library: _argument(argument)
                    for library, argument in zip(LIBRARIES, pair, strict=True)
                }
                for pair in defaults.differing
            ],
            "only_equinox": [_argument(one) for one in defaults.only_equinox],
            "only_flax": [_argument(one) for one in defaults.only_flax],
        },
        "initial_values": {
            "inputs": INPUTS,
            "arrays": [
                {**one._asdict(), "differs": one.differs}
                for one in details.initial
            ],
        },
    }


def _argument(argument: Argument) -> dict[str, str]:
    return {
        "layer": argument.layer,
        "argument": argument.name,
        "default": argument.shown.strip("`"),
        "note": argument.note,
    }


def described(arguments: Iterable[Argument]) -> Iterator[str]:
    """Returns arguments with their defaults and notes, in Markdown."""
    for argument in arguments:
        note = f" ({argument.note})" if argument.note else ""
        yield f"`{argument.name}={argument.shown.strip('`')}`{note}"


def printed(details: Details) -> list[Text]:
    """Returns the details for a terminal; no line is longer than 79."""
    text = [Text(f"\n{details.row.name}", style="bold")]

    def add(line: str, style: str = "") -> None:
        text.append(Text(line, style=style))

    for library, title in LIBRARIES.items():
        add(f"\n{title}", "underline")
        constructor = find_constructors(library)[details.row.name]
        for call in details.constructions[library] or [constructor.using]:
            add(call)
    if details.arrays:
        add("\nArrays and their layouts", "underline")
    for array in details.arrays:
        add(f"{array.name} {array.shape}")
        for library, title in LIBRARIES.items():
            add(f"    {title + ':':8} {array.native[library]}")
    defaults = details.defaults
    if any(defaults):
        add("\nDefaults that differ", "underline")
    for equinox, flax in defaults.differing:
        add(
            f"{equinox.name}={equinox.shown.strip('`')} in Equinox, "
            f"{flax.name}={flax.shown.strip('`')} in Flax"
            + "".join(f"; {one.note}" for one in (equinox, flax) if one.note)
        )
    for title, several in (
        ("Equinox", defaults.only_equinox),
        ("Flax", defaults.only_flax),
    ):
        if several:
            add(f"Only in {title}: {', '.join(described(several))}")
    differing = [one for one in details.initial if one.differs]
    if differing:
        add(f"\nInitial values that differ, at {INPUTS} inputs", "underline")
    for one in differing:
        add(f"{one.array}: {one.equinox} in Equinox, {one.flax} in Flax")
    return text
