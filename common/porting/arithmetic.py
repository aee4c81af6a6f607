"""The step that changes values, not only their order."""

import dataclasses

from common.layouts import Step


@dataclasses.dataclass(frozen=True)
class Divide(Step):
    """Divides an array by a number, which multiplication inverts.

    Equinox's `BatchNorm` with `mode="batch"` divides its statistics by
    `1 - momentum**counter` at inference, and `nnx.BatchNorm` does not.

    Attributes:
        by: the number; not 0.
        inverted: whether to multiply instead.
    """

    by: float
    inverted: bool = False

    def output(self, shape):
        if not self.by:
            raise ValueError(
                f"{self}: got 0, expected another number, because dividing "
                "by 0 has no inverse. Write the rule with a number that is "
                "not 0."
            )
        return shape

    def apply(self, x):
        return (x * self.by if self.inverted else x / self.by).astype(x.dtype)

    def inverse(self, shape):
        del shape
        return Divide(self.by, not self.inverted)

    def lifted(self, leading):
        del leading
        return self

    def __str__(self):
        return f"{'multiply' if self.inverted else 'divide'}[{self.by!r}]"
