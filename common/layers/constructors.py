"""One library's column of the layer table: a constructor for each row.

A constructor is a function that takes a row's hyper-parameters and returns
the library's layer. The decorator `Column.constructs` registers it, and says
which row it constructs, how its result is called on a batch, and which public
layers of the library the row covers.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar

from common.layers.table import LAYERS

Kind = Literal["stock", "settings", "custom", "composition"]
Keywords = Mapping[str, str | tuple[str, ...]]
Make = TypeVar("Make", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constructor:
    """How one library provides a row of the layer table.

    Attributes:
        row: the name of the row.
        make: takes the row's options as keywords and returns the layer.
        call: calls the layer on a batch of each input, channels last.
        stock: the public layers of the library that the row covers. Empty if
            the library has no such layer.
        kind: `"stock"` if `make` returns a stock layer with its defaults,
            `"settings"` if it returns a stock layer with other settings,
            `"custom"` if it returns a layer of this project, and
            `"composition"` if it combines parts of the library.
        using: the name of the custom layer, or what the composition consists
            of. Empty for the other kinds.
        page: the address of the first stock layer's documentation. Empty if
            there is no stock layer.
        keywords: arguments of the first stock layer whose names differ from
            the row's: the row's name to that of the library, or to several
            that together mean the same.
    """

    row: str
    make: Callable[..., Any]
    call: Callable[..., Any]
    stock: tuple[str, ...] = ()
    kind: Kind = "stock"
    using: str = ""
    page: str = ""
    keywords: Keywords = dataclasses.field(default_factory=dict)

    @property
    def renamed(self) -> dict[str, str]:
        """The row's names of the arguments in `keywords`, by the library's."""
        return {
            name: ours
            for ours, theirs in self.keywords.items()
            for name in ((theirs,) if isinstance(theirs, str) else theirs)
        }

    @property
    def place(self) -> str:
        """The module and the name of the function."""
        return f"{self.make.__module__}.{self.make.__qualname__}"


class Column(Mapping[str, Constructor]):
    """The constructors of one library, by the name of the row."""

    def __init__(
        self,
        package: str,
        *,
        call: Callable[..., Any],
        address: str,
    ):
        """Starts with no constructors.

        Args:
            package: the package whose modules hold the constructors.
            call: how a layer is called if its constructor does not say so.
            address: the documentation of a public layer, with `{page}` and
                `{name}` in place of its page and its name.
        """
        self.package = package
        self._call = call
        self._address = address
        self._constructors: dict[str, Constructor] = {}

    def constructs(
        self,
        row: str,
        *,
        call: Callable[..., Any] | None = None,
        stock: tuple[str, ...] = (),
        kind: Kind = "stock",
        using: str = "",
        page: str = "",
        keywords: Keywords | None = None,
    ) -> Callable[[Make], Make]:
        """Registers the decorated function as the constructor of a row.

        The function itself is returned unchanged, so that it can construct
        several rows. The arguments are those of `Constructor`, but `page` is
        the name of the page within the library's documentation.

        Raises:
            ValueError: if the table has no such row, or if another function
                constructs it already.
        """
        if row not in LAYERS:
            raise ValueError(
                f"constructor in {self.package}: got the row {row!r}, "
                f"expected one of {', '.join(LAYERS)}. Add the row to "
                "common/layers/table.py, or correct the name."
            )
        if page:
            page = self._address.format(page=page, name=stock[0])

        def register(make: Make) -> Make:
            constructor = Constructor(
                row=row,
                make=make,
                call=call or self._call,
                stock=stock,
                kind=kind,
                using=using,
                page=page,
                keywords=keywords or {},
            )
            other = self._constructors.get(row)
            # Reloading a module registers its functions a second time.
            if other is not None and other.place != constructor.place:
                raise ValueError(
                    f"constructor of {row!r}: got {constructor.place} and "
                    f"{other.place}, expected one function. Remove the "
                    "decorator from one of them."
                )
            self._constructors[row] = constructor
            return make

        return register

    def __getitem__(self, row: str) -> Constructor:
        """Returns the constructor of a row.

        Raises:
            ValueError: if no function constructs the row.
        """
        if row not in self._constructors:
            raise ValueError(
                f"constructor of {row!r} in {self.package}: got none, "
                f'expected a function decorated with @constructs("{row}"). '
                f"Add one to a module of {self.package}."
            )
        return self._constructors[row]

    def __contains__(self, row: object) -> bool:
        return row in self._constructors

    def __iter__(self) -> Iterator[str]:
        return iter(self._constructors)

    def __len__(self) -> int:
        return len(self._constructors)
