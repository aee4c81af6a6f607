"""Reads from a compiled program what its devices send to each other.

XLA inserts the communication of a sharded program, so only the optimized
HLO shows it. `Compiled.as_text()` returns the program of one device.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
"""The operations of HLO that move data between devices."""


def ring_bytes(kind: str, size: float, devices: int) -> float:
    """Returns the bytes that each device of a ring sends.

    An all-gather sends `(n - 1) / n` of the gathered array, a reduce-scatter
    the same share of the array before it, and an all-reduce is one after the
    other. A device sends its whole array once in a collective-permute.

    Args:
        kind: one of `KINDS`.
        size: the bytes of the whole array: after an all-gather, before a
            reduce-scatter, and on each device otherwise.
        devices: the number of devices that take part.

    References:
        Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for
        clusters of workstations", 2009.
    """
    if kind in ("collective-permute", "collective-broadcast"):
        return float(size)
    rounds = 2 if kind == "all-reduce" else 1
    return rounds * size * (devices - 1) / devices


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """A collective operation of a program.

    Attributes:
        kind: one of `KINDS`.
        size: the bytes of the whole array; see `ring_bytes`. An operation
            on several arrays counts all of them.
        devices: the number of devices in a group.
        calls: how often one run of the program executes the operation.
        arrays: the number of arrays that the operation sends together.
    """

    kind: str
    size: float
    devices: int
    calls: int = 1
    arrays: int = 1

    @property
    def moved(self) -> float:
        """The bytes that each device sends in one run, by `ring_bytes`."""
        return self.calls * ring_bytes(self.kind, self.size, self.devices)


class Instruction(NamedTuple):
    """An instruction of HLO text.

    Attributes:
        shapes: the shapes of the result. An array has one, and a tuple has
            those of its elements, each of which may be a tuple again.
        opcode: the name of the operation.
        rest: the text after the opcode: operands and attributes.
    """

    shapes: tuple[str, ...]
    opcode: str
    rest: str


def read_collectives(text: str) -> tuple[Collective, ...]:
    """Returns the collective operations of a compiled program.

    An operation in the body of a loop counts once per iteration if XLA knows
    the number of iterations, as it does for `lax.scan`, and once otherwise.
    Those of all branches of a conditional count. An asynchronous operation
    counts where it starts.

    Args:
        text: the optimized HLO, from `Compiled.as_text()`.

    Raises:
        ValueError: if the text is not that of an HLO module.
    """
    entry, computations = _computations(text)
    everyone = _devices(text)
    found = []
    for name, calls in _calls(entry, computations).items():
        for instruction in computations[name]:
            collective = _collective(instruction, everyone, calls)
            if collective is not None and collective.devices > 1:
                found.append(collective)
    return tuple(found)


def moved_bytes(collectives: Sequence[Collective]) -> float:
    """Returns the bytes that each device sends in one run of a program."""
    return float(sum(collective.moved for collective in collectives))


# --- the structure of a module ----------------------------------------------

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*)$")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{[^}]*\})?")
_CALLEE = re.compile(
    r"\b(calls|to_apply|body|condition|true_computation|false_computation"
    r"|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


def _computations(text: str) -> tuple[str, dict[str, list[Instruction]]]:
    """Returns the name of the entry, and the instructions of each part."""
    entry, name = "", ""
    found: dict[str, list[Instruction]] = {}
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            name = header[2]
            found[name] = []
            entry = name if header[1] else entry
        elif name and (match := _INSTRUCTION.match(line)):
            shapes, rest = _split_shapes(match[1])
            opcode = _OPCODE.match(rest)
            if opcode:
                rest = rest[opcode.end() :]
                found[name].append(Instruction(shapes, opcode[1], rest))
    if not entry:
        raise ValueError(
            f"HLO: got {text[:40]!r}, expected the text of an HLO module with "
            "an ENTRY computation. Pass what `Compiled.as_text()` returns."
        )
    return entry, found


def _calls(
    entry: str, computations: Mapping[str, Sequence[Instruction]]
) -> dict[str, int]:
    """Returns how often one run executes each computation."""
    calls = dict.fromkeys(computations, 0)

    def visit(name: str, times: int) -> None:
        calls[name] += times
        for instruction in computations[name]:
            trips = 1
            if instruction.opcode == "while":
                known = _TRIPS.search(instruction.rest)
                trips = int(known[1]) if known else 1
            for callee in _callees(instruction):
                if callee in computations:
                    visit(callee, times * trips)

    visit(entry, 1)
    return calls


def _callees(instruction: Instruction) -> Iterator[str]:
    """Yields the computations that an instruction runs."""
    for _, names in _CALLEE.findall(instruction.rest):
        yield from re.findall(r"[\w.\-]+", names)


def _split_shapes(text: str) -> tuple[tuple[str, ...], str]:
    """Splits `shape opcode(...)` into the result's shapes and the rest."""
    if not text.startswith("("):
        array = _ARRAY.match(text)
        end = array.end() if array else 0
        return (text[:end],), text[end:]
    parts, depth, start = [], 0, 1
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if (character == "," and depth == 1) or depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
        if depth == 0:
            return tuple(part for part in parts if part), text[i + 1 :]
    return (), ""


# --- one operation ----------------------------------------------------------


def _collective(
    instruction: Instruction, everyone: int, calls: int
) -> Collective | None:
    kind = instruction.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    shapes = instruction.shapes
    if instruction.opcode == "all-gather-start":
        # The result is the operands and the gathered arrays.
        shapes = shapes[len(shapes) // 2 :]
    elif instruction.opcode == "collective-permute-start":
        # The result is the operand, the received array and two contexts.
        shapes = shapes[1:2]
    arrays = [array for shape in shapes for array in _ARRAY.findall(shape)]
    size = sum(_array_bytes(dtype, dims) for dtype, dims in arrays)
    devices = _group_size(instruction.rest, everyone)
    if kind == "reduce-scatter":
        size *= devices
    return Collective(
        kind=kind,
        size=size,
        devices=devices,
        calls=calls,
        arrays=len(arrays),
    )


def _array_bytes(dtype: str, dims: str) -> float:
    """Returns the bytes of an array such as `f32[8,4]`."""
    bits = re.match(r"[a-z]+(\d+)", dtype)
    width = int(bits[1]) if bits else 8 * (dtype == "pred")
    return width / 8 * math.prod(int(d) for d in re.findall(r"\d+", dims))


_PAIRS = re.compile(r"source_target_pairs=\{(.*?)\}\}")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_TILED = re.compile(r"replica_groups=\[\d+,(\d+)\]<=")
_MESH = re.compile(r"replica_groups=mesh\[(.*?)\] ?\{(.*?)\}")


def _group_size(rest: str, everyone: int) -> int:
    """Returns the number of devices that take part in one group."""
    if pairs := _PAIRS.search(rest):
        ends = re.findall(r"(\d+),(\d+)", pairs[1])
        return len(
            {end for pair in ends if len(set(pair)) > 1 for end in pair}
        )
    if listed := _LISTED.search(rest):
        return len(listed[1].split(","))
    if tiled := _TILED.search(rest):
        return int(tiled[1])
    if mesh := _MESH.search(rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        # A part of an axis is written as 'axis':(before)size.
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return everyone  # `replica_groups={}`


def _devices(text: str) -> int:
    """Returns the number of devices that a module is compiled for."""
    header = text.partition("\n")[0]
    counts = re.findall(r"(?:num_partitions|replica_count)=(\d+)", header)
    return math.prod(map(int, counts))
