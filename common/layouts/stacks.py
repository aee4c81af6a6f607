"""Arrays that hold one array of each of several layers of equal structure."""

import dataclasses
import itertools
from collections.abc import Iterator

from common.layouts.layout import Layout
from common.layouts.rules import EACH
from common.layouts.steps import Index, Shape


@dataclasses.dataclass(frozen=True)
class Stacked:
    """An array with the arrays of several layers, stacked by its first axes.

    Attributes:
        name: its name, with a word such as `*0` for the number of a layer.
        path: where it is, in the library's own notation.
        shape: its shape.

    Raises:
        ValueError: if the array has too few axes.
    """

    name: str
    path: str
    shape: Shape

    def __post_init__(self):
        if len(self.shape) < len(self.axes):
            raise ValueError(
                f"stacked array {self.path}: got the shape {self.shape}, "
                f"expected {len(self.axes)} axes or more, one for each stack "
                f"in {self.name!r}. Make the layers with the library's `vmap`."
            )

    @property
    def axes(self) -> tuple[str, ...]:
        """What each of the first axes counts: the name up to the number."""
        ends = (found.end() for found in EACH.finditer(self.name))
        return tuple(self.name[:end] for end in ends)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arrays of all layers, in order."""
        return tuple(name for name, _ in self._numbered())

    def parts(self) -> dict[str, Layout]:
        """Returns how the array of each layer is taken from it."""
        return {
            name: Layout.of(
                self.path, self.shape, *(Index(0, i) for i in numbers)
            )
            for name, numbers in self._numbered()
        }

    def _numbered(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yields the name of each layer's array, and its place."""
        # The text between the numbers, and the number of each first layer.
        words = EACH.split(self.name)
        sizes = self.shape[: len(self.axes)]
        for numbers in itertools.product(*map(range, sizes)):
            pairs = zip(words[1::2], numbers, words[2::2], strict=True)
            rest = (f"{int(start) + i}{text}" for start, i, text in pairs)
            yield words[0] + "".join(rest), numbers
