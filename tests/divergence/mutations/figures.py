"""How many planted faults `diff` finds and names; its false alarms."""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from common import diff
from common.divergence import Diff
from common.divergence.record import Node
from common.divergence.sources import Frame, select_frames
from tests.divergence.mutations.bank import FAULTS, PAIRS
from tests.divergence.mutations.pair import Pair, places

INITIALIZATIONS = 200
"""How many unmutated pairs are drawn, in total."""
FLOAT32_STRIDE = 4
"""One in this many unmutated pairs runs in float32."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What `diff` reported about one planted fault.

    Attributes:
        pair: the name of the pair.
        fault: the name of the fault.
        rewritten: whether the sides of the pair are written differently.
        found: whether the outputs differ.
        line: the index of the first origin that names a marked line, or
            `None`.
        function: the index of the first origin that names the function of a
            marked line, or `None`.
    """

    pair: str
    fault: str
    rewritten: bool
    found: bool
    line: int | None
    function: int | None


def run(
    pair: Pair, fault: str = "", seed: int = 0, dtype: str | None = "float64"
) -> Diff:
    """Draws a pair, with or without a fault, and compares both sides."""
    salt = zlib.crc32(pair.name.encode())
    case = pair.build(np.random.default_rng((salt, seed)), fault)
    return diff(
        case.left,
        case.right,
        *case.args,
        right_args=case.right_args,
        dtype=dtype,
    )


def find(pair: Pair, fault: str) -> Finding:
    """Plants a fault and returns whether it is found and named."""
    result = run(pair, fault)
    marks = places(pair, fault)
    named: dict[str, int | None] = {"line": None, "function": None}
    for i, origin in reversed(list(enumerate(result.origins))):
        nodes = [node for node in (origin.left, origin.right) if node]
        shown = [frame for node in nodes for frame in shown_lines(node)]
        leaf = pair.leaves.get(fault)
        if leaf and any(leaf in node.label.split(".") for node in nodes):
            named["line"] = named["function"] = i
        if {frame[:2] for frame in shown} & {mark[:2] for mark in marks}:
            named["line"] = i
        inner = [frame for node in nodes for frame in model_lines(node)]
        if {frame[::2] for frame in inner} & {mark[::2] for mark in marks}:
            named["function"] = i
    return Finding(pair.name, fault, pair.rewritten, not result.ok, **named)


def shown_lines(node: Node) -> list[Frame]:
    """Returns the lines that `diff` shows, without those of libraries."""
    return [
        frame for frame in select_frames(node.frames) if not frame.in_library
    ]


def model_lines(node: Node) -> list[Frame]:
    """Returns those of the shown lines that are in a part of the model."""
    users = [frame for frame in node.frames if not frame.in_library]
    inner = [frame for frame in users if frame.function != "<lambda>"][:-1]
    return [frame for frame in shown_lines(node) if frame in inner]


def find_false_alarms(
    count: int = INITIALIZATIONS,
    after_each: Callable[[], None] = lambda: None,
) -> list[tuple[str, int, str | None]]:
    """Returns the unmutated pairs that `diff` reports as different.

    Args:
        count: the number of initializations, of all pairs in turn.
        after_each: called after each of them.
    """
    found = []
    for i in range(count):
        pair, seed = PAIRS[i % len(PAIRS)], 1 + i // len(PAIRS)
        dtype = None if i % FLOAT32_STRIDE == 0 else "float64"
        if not run(pair, seed=seed, dtype=dtype).ok:
            found.append((pair.name, seed, dtype))
        after_each()
    return found


def figures() -> dict[str, Any]:
    """Computes the figures of the documentation."""
    findings = [find(pair, fault) for pair, fault in FAULTS]
    return summarize(findings, find_false_alarms())


def summarize(
    findings: list[Finding], false_alarms: list[Any]
) -> dict[str, Any]:
    """Counts what was found and named."""

    def named(within: int, lines_only: bool = False) -> float:
        hits = [
            any(
                place is not None and place < within
                for place in (
                    finding.line,
                    None if lines_only else finding.function,
                )
            )
            for finding in findings
        ]
        return sum(hits) / len(hits)

    return {
        "faults": len(findings),
        "rewritten": sum(finding.rewritten for finding in findings),
        "found": sum(finding.found for finding in findings),
        "named": named(2),
        "named first": named(1),
        "named by line": named(2, lines_only=True),
        "named by line first": named(1, lines_only=True),
        "initializations": INITIALIZATIONS,
        "false alarms": len(false_alarms),
    }
