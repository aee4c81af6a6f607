"""The result of comparing two programs."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from common.divergence.fingerprint import fingerprint_error
from common.divergence.matching import Matching
from common.divergence.measure import error_between
from common.divergence.record import Node, Record

SIDES = ("left", "right")
MAX_NEAREST_ERROR = 0.1
"""Values with a larger error than this are unrelated."""


@dataclasses.dataclass(frozen=True, repr=False)
class Output:
    """One leaf of the outputs of both functions.

    Attributes:
        path: the path of the leaf in the output.
        left: the value on the left.
        right: the value on the right.
        ok: whether the values are equal. If their shapes differ, they may be
            equal up to the order of the axes.
        error: the largest absolute error over the largest magnitude.
    """

    path: str
    left: Node
    right: Node
    ok: bool
    error: float

    def __repr__(self):
        return (
            f"Output({self.path!r}, ok={self.ok}, error={self.error:.3g}, "
            f"left={self.left.text}, right={self.right.text})"
        )


@dataclasses.dataclass(frozen=True)
class Origin:
    """An earliest divergence: the values it was computed from agree.

    Attributes:
        left: the value in the left program, or `None`.
        right: the value in the right program, or `None`.
        reason: what is known about the divergence, or `""`.
    """

    left: Node | None
    right: Node | None
    reason: str = ""

    @property
    def error(self) -> float | None:
        """The relative error of the two values, if there are two.

        It is the largest absolute error over the largest magnitude.
        """
        if self.left is None or self.right is None:
            return None
        return error_between(self.left, self.right)


class NearestValue(NamedTuple):
    """A value of the left program and the nearest one of the right.

    Attributes:
        left: the value.
        right: the nearest value.
        error: the largest absolute error over the largest magnitude.
        is_match: whether the error is within the tolerance.
    """

    left: Node
    right: Node
    error: float
    is_match: bool


@dataclasses.dataclass(frozen=True, repr=False)
class Diff:
    """What two programs have in common, and where they first diverge.

    Attributes:
        outputs: every leaf of the outputs.
        origins: the earliest divergences, the most likely one first.
        matching: the matches between the values of both programs.
        seconds: how long the comparison took.
        hidden: the largest relative error of the outputs that casts to
            narrower dtypes can hide, or `None` if both programs round alike.
        missing: the outputs that only one program returns, in words.
    """

    outputs: list[Output]
    origins: list[Origin]
    matching: Matching
    seconds: float
    hidden: float | None = None
    missing: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all outputs are equal, and none is missing."""
        return not self.missing and all(output.ok for output in self.outputs)

    @property
    def records(self) -> tuple[Record, Record]:
        """What each program computed."""
        return self.matching.records

    @property
    def ceilings(self) -> tuple[Node | None, Node | None]:
        """The first value in each program that limits its precision.

        This is the first value in the narrowest dtype that the outputs
        depend on, or `None` if no value is narrower than the inputs. The
        comparison cannot be more precise than that dtype.
        """
        left, right = (_precision_ceiling(record) for record in self.records)
        return left, right

    def nearest_values(self) -> list[NearestValue]:
        """Returns the nearest value of the right program for each of the left.

        They are in the execution order of the left program. Values without
        a related one are left out.
        """
        left, right = (record.nodes for record in self.records)
        found = []
        for node in left:
            fingerprint = node.fingerprint
            if fingerprint.kind != "float" or fingerprint.is_constant:
                continue
            matches = self.matching.matches(0, node.number)
            if matches:
                error, best = min(
                    (fingerprint_error(fingerprint, right[i].fingerprint), i)
                    for i in matches
                )
            else:
                nearest = self.matching.nearest(0, node.number)
                if nearest is None or nearest[1] > MAX_NEAREST_ERROR:
                    continue
                best, error = nearest
            found.append(NearestValue(node, right[best], error, bool(matches)))
        return found

    def __repr__(self):
        return f"Diff(ok={self.ok}, origins={len(self.origins)})"

    def __str__(self):
        from common.divergence.text import render

        return render(self)


def _precision_ceiling(record: Record) -> Node | None:
    narrowest = max(
        (record.nodes[number].eps for number in record.outputs), default=0.0
    )
    dtypes = {
        node.dtype for node in record.nodes if node.fingerprint.kind == "float"
    }
    widest = min((float(jnp.finfo(d).eps) for d in dtypes), default=0.0)
    if narrowest <= widest:
        return None
    limiting = (node for node in record.nodes if node.eps == narrowest)
    node = next(limiting)
    return None if node.primitive == "constant" else node
