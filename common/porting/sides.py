"""One side of a plan: its arrays, and what its layer types say of them."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from common.layouts import Layout
from common.porting.arrays import ArrayInfo, Infos


@dataclasses.dataclass(frozen=True)
class Side:
    """The arrays of one side of a plan.

    Attributes:
        what: `"source"` or `"target"`.
        infos: the arrays by name.
        canonical: how canonical arrays are made of them, by canonical name.
            Empty if no layer types are known.
        native: how the arrays are made of canonical ones.
        aliases: the canonical name of each tied array, by its other names.
        settled: the names of the arrays whose axis order is known from the
            type of their layer, or by convention.
        layers: the layer that has the array, by name, where it is known.
        model: the native object, if there is one.
        library: of the model.
    """

    what: str
    infos: Infos
    canonical: Mapping[str, Layout]
    native: Mapping[str, Layout]
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settled: frozenset[str] = frozenset()
    layers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model: Any = None
    library: str | None = None

    @classmethod
    def plain(
        cls, what: str, infos: Infos, settled: Iterable[str] = ()
    ) -> "Side":
        """Returns a side of which the names are the canonical ones."""
        same = {n: Layout.of(n, info.shape) for n, info in infos.items()}
        return cls(what, infos, same, same, settled=frozenset(settled))

    def named(self, name: str) -> str:
        """Returns the name of an array that may be given by another name.

        Args:
            name: the dotted path of an array, or its canonical name, or
                another name of a tied array.
        """
        if name in self.infos:
            return name
        layout = self.canonical.get(self.aliases.get(name, name))
        if layout is not None and len(layout.sources) == 1:
            (source,) = layout.sources
            if source.shape == self.infos[source.name].shape:
                return source.name
        return name

    @functools.cached_property
    def modules(self) -> dict[str, dict[str, str]]:
        """The canonical arrays of every module that holds some.

        By the dotted path of the module: the canonical names of its arrays,
        by what follows the name of the module in them.
        """
        found: dict[str, dict[str, str]] = {}
        for name, layout in self.canonical.items():
            paths = [source.name.split(".") for source in layout.sources]
            length = _common([*paths, name.split(".")])
            for i in range(1, min(length, *(len(p) - 1 for p in paths)) + 1):
                module = ".".join(paths[0][:i])
                found.setdefault(module, {})[name[len(module) + 1 :]] = name
            # Where a layer's rule has renamed it, both names are known.
            words = name.split(".")
            shared = paths[0][: _common(paths)]
            if length < len(words) - 1:
                for i in range(1, len(words)):
                    module = ".".join(words[:i])
                    rest = ".".join(words[i:])
                    found.setdefault(module, {})[rest] = name
                deep = ".".join(shared[: len(words) - 1])
                if len(shared) >= len(words) - 1 > length:
                    found.setdefault(deep, {})[words[-1]] = name
        for alias, name in self.aliases.items():
            words = alias.split(".")
            for i in range(1, len(words)):
                module, rest = ".".join(words[:i]), ".".join(words[i:])
                found.setdefault(module, {}).setdefault(rest, name)
        return found


def _common(paths: list[list[str]]) -> int:
    """Returns how many words all paths share at their start."""
    count = 0
    for words in zip(*paths, strict=False):
        if len(set(words)) > 1:
            break
        count += 1
    return count


def describe(name: str, info: ArrayInfo) -> str:
    """Returns a name with its shape and dtype, for a message."""
    return f"{name} {info.dtype}{list(info.shape)}"
