"""Runs a demonstration and compares its number with the one on record."""

import contextlib
import dataclasses

import jax

from common.differences.row import GONE, KnownDifference


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The number that a demonstration returned.

    Attributes:
        row: the known difference that was measured.
        value: the number.
    """

    row: KnownDifference
    value: float

    @property
    def still_there(self) -> bool:
        """Whether the number is the one on record, within its band."""
        row = self.row
        return abs(self.value - row.measured) <= row.band * row.size

    @property
    def gone(self) -> bool:
        """Whether the library now agrees with the definition."""
        return abs(self.value - self.row.expected) <= GONE * self.row.size

    @property
    def verdict(self) -> str:
        """`"still there"` or `"gone"`, or `"changed"` if it is neither."""
        if self.still_there:
            return "still there"
        return "gone" if self.gone else "changed"


def measure(row: KnownDifference) -> Measurement:
    """Runs a demonstration under JAX's default settings.

    Raises:
        TypeError: if the demonstration does not return a `float`.
    """
    with contextlib.ExitStack() as defaults:
        # The demonstrations show the stock layers as most people run them.
        # Those that need float64 enable x64 themselves.
        defaults.enter_context(jax.enable_x64(False))
        defaults.enter_context(jax.numpy_rank_promotion("allow"))
        defaults.enter_context(jax.numpy_dtype_promotion("standard"))
        value = row.demonstration()
    if not isinstance(value, float):
        raise TypeError(
            f"value of {row.source}: got {type(value).__name__}, expected "
            "float. Convert the result with `float(...)`."
        )
    return Measurement(row, value)
