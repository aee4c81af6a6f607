"""What a program computed: a flat list of primitive operations."""

import dataclasses
from typing import Any

from common.divergence.fingerprint import Fingerprint
from common.divergence.sources import Frame, module_path


@dataclasses.dataclass(slots=True, repr=False)
class Node:
    """A value that was computed, and the equation that computed it.

    Attributes:
        number: the index in the record.
        primitive: the operation, or `"input"` or `"constant"`.
        operands: the numbers of the values that it was computed from.
        literals: the scalars among the equation's operands.
        params: the equation's parameters.
        shape: the shape of the value.
        dtype: the dtype of the value in the program.
        fingerprint: the fingerprint of the value.
        value: the value, or `None` if the memory budget was used up.
        frames: the source lines that it comes from, innermost first.
        scope: JAX's name stack.
        iterations: the iteration of each enclosing loop, outermost first.
        eps: the machine epsilon of the narrowest floating dtype in which it
            or one of its ancestors was rounded.
        label: the path of an input.
        rounding: the machine epsilon of the dtype that the value itself was
            rounded to, if the program is evaluated in float64; else 0.
    """

    number: int
    primitive: str
    operands: tuple[int, ...]
    literals: tuple[Any, ...]
    params: dict[str, Any]
    shape: tuple[int, ...]
    dtype: str
    fingerprint: Fingerprint
    value: Any
    frames: tuple[Frame, ...]
    scope: str
    iterations: tuple[int, ...]
    eps: float
    label: str = ""
    rounding: float = 0.0

    @property
    def module(self) -> str:
        """The path of the module that computed it, or `""`."""
        return module_path(self.scope)

    @property
    def norm(self) -> float:
        """The root of the mean of the squares, without masks."""
        return float(self.fingerprint.moments[1] ** 0.5)

    @property
    def text(self) -> str:
        """The dtype, the shape and the norm of the value, in words."""
        shape = f"{self.dtype}[{','.join(map(str, self.shape))}]"
        return f"{shape} of norm {self.norm:.4g}"

    def __repr__(self):
        name = " ".join(filter(None, (self.primitive, self.label)))
        return f"Node({self.number}, {name!r}, {self.text})"


@dataclasses.dataclass(repr=False)
class Record:
    """Everything that a function computed on some inputs.

    Attributes:
        nodes: every value, in execution order.
        outputs: the numbers of the outputs.
        notes: what could not be compared.
    """

    nodes: list[Node]
    outputs: list[int]
    notes: list[str]

    def __repr__(self):
        return f"Record({len(self.nodes)} values, outputs={self.outputs})"
