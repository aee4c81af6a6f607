"""The result of aligning two models."""

import dataclasses
import functools

from common.divergence.result import Diff
from common.layouts import Layout
from common.porting.arrays import Infos
from common.porting.plan import Plan

PROVED = "proved"
DIFFERS = "mapped, but differs"
REFUSED = "refused"

Names = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an alignment cost.

    Attributes:
        arrays: the number of arrays of the left and of the right model that
            may have a counterpart.
        elements: the number of their elements.
        cuts: how many ways of cutting the arrays were tried.
        runs: how many times each model was run, with its gradient.
        seconds: how long all of it took.
        memory: the largest memory of the process so far, in bytes.
    """

    arrays: tuple[int, int]
    elements: tuple[int, int]
    cuts: int
    runs: tuple[int, int]
    seconds: float
    memory: int


@dataclasses.dataclass(frozen=True)
class Choice:
    """Arrays of the left that an array of the right may equally be.

    Attributes:
        right: the array of the right model.
        lefts: the arrays of the left model; the first one was chosen.
    """

    right: str
    lefts: Names


@dataclasses.dataclass(frozen=True, repr=False)
class Alignment:
    """Which arrays of a left model make which arrays of a right one.

    Attributes:
        layouts: by the dotted name of an array of the right model, the layout
            that makes it from arrays of the left model.
        status: `"proved"`, `"mapped, but differs"` or `"refused"`.
        agreement: the relative error of the outputs with random weights that
            are carried through the mapping; at the symmetric point, if the
            models were refused.
        gradients: the largest relative error of a gradient.
        training: the same errors in training mode, of the outputs and of the
            updated buffers; `None` if the models update none.
        precision: the narrowest dtype in either model, which limits how well
            the outputs can agree.
        unused: the arrays without an effect, of the left and of the right.
        eliminated: the pairs of them, and of the counters and flags of
            layers, that were found by elimination.
        left_over: the arrays of the left that have no place on the right.
        right_over: the arrays of the right that nothing of the left makes.
        constants: the other arrays, which stay as they are, of both sides.
        choices: where several arrays are right.
        tied: for each array that stands for several ones of the other side,
            those arrays.
        notes: what else there is to know.
        cost: what the alignment cost.
        source: the shapes, dtypes and roles of all arrays of the left.
        target: those of the right.
        divergence: where the models differ, if they do.
    """

    layouts: dict[str, Layout]
    status: str
    agreement: float
    gradients: float
    precision: str
    unused: tuple[Names, Names]
    eliminated: tuple[tuple[str, str], ...]
    left_over: Names
    right_over: Names
    constants: tuple[Names, Names]
    choices: tuple[Choice, ...]
    tied: tuple[tuple[str, Names], ...]
    notes: tuple[str, ...]
    cost: Cost
    source: Infos
    target: Infos
    training: tuple[float, float] | None = None
    divergence: Diff | None = None

    @property
    def proved(self) -> bool:
        """Whether the mapping is proved."""
        return self.status == PROVED

    @functools.cached_property
    def plan(self) -> Plan:
        """The mapping as a plan, which `port` takes as its rules.

        Arrays of the left that go nowhere are ignored, and arrays of the
        right that nothing makes are kept.

        Raises:
            ValueError: if the models were refused, or if only a part of an
                array of the left is used, because the other part has no place
                on the right.
        """
        if self.status == REFUSED:
            raise ValueError(
                "plan: got models that were refused, expected a mapping. "
                "Look at `divergence` and correct a model."
            )
        used = {s.name for x in self.layouts.values() for s in x.sources}
        return Plan(
            self.layouts,
            self.source,
            self.target,
            tuple(self.source.keys() - used),
            tuple(self.target.keys() - self.layouts.keys()),
            self.notes,
        )

    @property
    def rules(self) -> str:
        """The plan as text, which `port` reads."""
        return self.plan.rules

    def __repr__(self) -> str:
        return f"Alignment(status={self.status!r}, arrays={len(self.layouts)})"

    def __str__(self) -> str:
        from common.alignment.text import describe

        return describe(self)


class AlignmentError(ValueError):
    """No mapping between the arrays of two models exists.

    Attributes:
        alignment: what is known: where the models differ, and which arrays
            have no counterpart.
    """

    alignment: Alignment

    def __init__(self, message: str, alignment: Alignment):
        super().__init__(message)
        self.alignment = alignment
