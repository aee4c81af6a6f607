"""How many faults `diff` finds, names, and how often it cries wolf."""

import dataclasses
import zlib
from typing import Any

import numpy as np

from common import diff
from common.divergence import Diff
from common.divergence.interpret import Node
from common.divergence.sources import Frame, select_frames
from tests.divergence.mutations.bank import FAULTS, PAIRS
from tests.divergence.mutations.pair import Pair, places

INITIALISATIONS = 200
"""Unmutated pairs are drawn this often, all together."""
NARROW = 4
"""Every so-manieth of them runs in float32."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What `diff` said of one planted fault.

    Attributes:
        pair: the pair's name.
        fault: its name.
        rewritten: whether the sides of the pair are written differently.
        found: whether the outputs differ.
        line: the place among the origins, from 0, of the first that names a
            marked line; None if none does.
        layer: the same of the function that the line is in.
    """

    pair: str
    fault: str
    rewritten: bool
    found: bool
    line: int | None
    layer: int | None


def run(
    pair: Pair, fault: str = "", seed: int = 0, dtype: str | None = "float64"
) -> Diff:
    """Draws a pair, with or without a fault, and compares its sides."""
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
    """Plants a fault and says whether it is found and named."""
    result = run(pair, fault)
    marks = places(pair, fault)
    named: dict[str, int | None] = {"line": None, "layer": None}
    for i, origin in reversed(list(enumerate(result.origins))):
        nodes = [it for it in (origin.left, origin.right) if it]
        seen = [it for node in nodes for it in lines(node)]
        leaf = pair.leaves.get(fault)
        if leaf and any(leaf in it.label.split(".") for it in nodes):
            named["line"] = named["layer"] = i
        if {it[:2] for it in seen} & {it[:2] for it in marks}:
            named["line"] = i
        inner = [it for node in nodes for it in layers(node)]
        if {it[::2] for it in inner} & {it[::2] for it in marks}:
            named["layer"] = i
    return Finding(pair.name, fault, pair.rewritten, not result.ok, **named)


def lines(node: Node) -> list[Frame]:
    """Returns the lines that a reader is shown, but for the libraries'."""
    return [it for it in select_frames(node.frames) if not it.in_library]


def layers(node: Node) -> list[Frame]:
    """Returns those of the lines that are in a part of the model."""
    users = [it for it in node.frames if not it.in_library]
    inner = [it for it in users if it.function != "<lambda>"][:-1]
    return [it for it in lines(node) if it in inner]


def alarms(count: int = INITIALISATIONS) -> list[tuple[str, int, str | None]]:
    """Returns the draws of unmutated pairs that `diff` says differ."""
    found = []
    for i in range(count):
        pair, seed = PAIRS[i % len(PAIRS)], 1 + i // len(PAIRS)
        dtype = None if i % NARROW == 0 else "float64"
        if not run(pair, seed=seed, dtype=dtype).ok:
            found.append((pair.name, seed, dtype))
    return found


def figures() -> dict[str, Any]:
    """Returns the three figures, and what they are made of."""
    findings = [find(pair, fault) for pair, fault in FAULTS]
    return summary(findings, alarms())


def summary(findings: list[Finding], wolves: list[Any]) -> dict[str, Any]:
    """Counts."""

    def named(within: int, lines_only: bool = False) -> float:
        hits = [
            any(
                place is not None and place < within
                for place in (it.line, None if lines_only else it.layer)
            )
            for it in findings
        ]
        return sum(hits) / len(hits)

    return {
        "faults": len(findings),
        "rewritten": sum(it.rewritten for it in findings),
        "found": sum(it.found for it in findings),
        "named": named(2),
        "named first": named(1),
        "named by line": named(2, lines_only=True),
        "named by line first": named(1, lines_only=True),
        "initialisations": INITIALISATIONS,
        "false alarms": len(wolves),
    }
