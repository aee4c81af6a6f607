"""A known difference: its row of the catalogue and its demonstration."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from common.errors import choose

Library = Literal["equinox", "flax"]
Dtype = Literal["bfloat16", "float32", "float64"]

NOT_REPORTED = "not reported"
REPOSITORIES = {"equinox": "patrick-kidger/equinox", "flax": "google/flax"}

FAMILIES = {
    "state": "State and modules",
    "batch_norm": "Batch normalization",
    "normalization": "Layer, RMS, and group normalization",
    "reparametrization": "Spectral and weight normalization",
    "dropout": "Dropout",
    "linear": "Linear, embedding, and activation",
    "convolution": "Convolution and pooling",
    "sequence": "Attention and recurrence",
}
"""The titles of the families, in the order of the catalogue."""

# A difference is gone if no more than this fraction of its recorded size is
# left. A number between "gone" and "still there" needs a person to look at it.
GONE = 1e-2

EXACT = 1e-4
"""The band of a number that follows from a formula, up to float32 rounding."""

SEEDED = 2e-2
"""The band of a number that depends on a seed and, slightly, on matmuls."""

ROUNDING = 0.9
"""The band of a rounding error, because devices sum in different orders.

The three numbers that use it vary by a factor of up to 2.3 over 20 seeds.
"""

RAISES = "1 if the call raises an error, 0 if it does not"
"""The quantity of a known difference that is an exception."""


class Excuse(NamedTuple):
    """A mismatch that the layer matrix accepts because of a known difference.

    Attributes:
        layer: the name of a row of the layer table.
        dtypes: the dtypes in which the layer differs from its definition.
        quantities: what differs: `"output"`, `"gradients"` or `"buffers"`.
        options: the hyper-parameters with which the layer differs.
    """

    layer: str
    dtypes: tuple[str, ...]
    quantities: tuple[str, ...]
    options: Mapping[str, Any]


# Each known difference is a single object, so it is compared by identity.
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class KnownDifference:
    """A known difference between a stock layer and its definition.

    Attributes:
        name: the name of the demonstration, with `-` in place of `_`.
        family: a key of `FAMILIES`.
        layer: the stock layer, or the object that holds the state.
        backend: the library whose stock layer it is.
        dtype: the dtype of the demonstration.
        quantity: the quantity that the demonstration returns, with its unit.
        what: describes the difference in complete sentences.
        expected: the number that follows from the definition.
        measured: the number on record. It follows from the formula in
            `origin`, or was measured with equinox 0.13.8, flax 0.12.8 and
            jax 0.10.2 on the CPU.
        band: how far a number may be from `measured`, as a fraction of the
            recorded size, and still be the same difference.
        origin: the formula behind `measured`, or `"measured"`.
        upstream: the issue that reports the difference, or `"not reported"`.
        related: other issues that concern it.
        ours: describes what this project does about the difference.
        excuses: the mismatches of the layer matrix that it explains.
        demonstration: measures the difference on the stock layer.
    """

    name: str
    family: str
    layer: str
    backend: Library
    dtype: Dtype
    quantity: str
    what: str
    expected: float
    measured: float
    band: float
    origin: str
    upstream: str
    related: tuple[str, ...]
    ours: str
    excuses: tuple[Excuse, ...]
    demonstration: Callable[[], float]

    @property
    def source(self) -> str:
        """The dotted name of the demonstration."""
        function = self.demonstration
        return f"{function.__module__}.{function.__name__}"

    @property
    def size(self) -> float:
        """The absolute difference of the recorded and the expected number."""
        return abs(self.measured - self.expected)


class Family:
    """The known differences of one family in one library.

    Each module of `impl_<backend>.differences` creates one as `family`. Its
    decorator turns a demonstration into a `KnownDifference`, for example:

        family = Family("equinox", "dropout")

        @family.known_difference(name="dropout-keys", layer="Dropout", ...)
        def dropout_keys() -> float:
            ...

    Attributes:
        backend: the library.
        name: a key of `FAMILIES`.
        rows: the known differences, in the order of their definition.
    """

    def __init__(self, backend: Library, name: str):
        """Creates an empty family.

        Raises:
            ValueError: if `name` is not a key of `FAMILIES`.
        """
        if name not in FAMILIES:
            raise choose(
                "family",
                name,
                FAMILIES,
                "Correct the name, or add a title to FAMILIES in "
                "common/differences/row.py.",
            )
        self.backend: Library = backend
        self.name = name
        self.rows: list[KnownDifference] = []

    def known_difference(
        self,
        *,
        name: str,
        layer: str,
        quantity: str,
        what: str,
        measured: float,
        ours: str,
        dtype: Dtype = "float32",
        expected: float = 0.0,
        band: float = EXACT,
        origin: str = "measured",
        upstream: str = NOT_REPORTED,
        related: tuple[str, ...] = (),
        excuses: tuple[Excuse, ...] = (),
    ) -> Callable[[Callable[[], float]], KnownDifference]:
        """Returns a decorator that adds a demonstration to the catalogue.

        The arguments are described at `KnownDifference`. The demonstration
        takes no arguments and returns the measured number as a `float`.

        Raises:
            ValueError: if the family already has a known difference of this
                name, or if the demonstration has another name.
        """

        def decorate(demonstration: Callable[[], float]) -> KnownDifference:
            function = name.replace("-", "_")
            if demonstration.__name__ != function:
                raise ValueError(
                    f"demonstration of {name!r}: got a function named "
                    f"{demonstration.__name__!r}, expected {function!r}. "
                    "Rename the function, or change `name`."
                )
            if any(row.name == name for row in self.rows):
                raise ValueError(
                    f"known difference {name!r} in {demonstration.__module__}"
                    ": got a second definition, expected one. Rename one of "
                    "the two functions."
                )
            row = KnownDifference(
                name=name,
                family=self.name,
                layer=layer,
                backend=self.backend,
                dtype=dtype,
                quantity=quantity,
                what=what,
                expected=expected,
                measured=measured,
                band=band,
                origin=origin,
                upstream=upstream,
                related=related,
                ours=ours,
                excuses=excuses,
                demonstration=demonstration,
            )
            self.rows.append(row)
            return row

        return decorate
