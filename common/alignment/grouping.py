"""Groups the lines of a mapping that differ in numbers or in one word."""

import collections
import dataclasses
import re
from collections.abc import Sequence

NAME_NUMBERS = re.compile(
    r"^\d+(?=\.)|(?<=[\[ ])\d+(?=\.)"  # the first word of a name
    r"|(?<=\.)\d+(?=[.;\s\]]|$)|(?<=[a-z_])\d+"  # another one, or its end
    r"|(?<=index\(\d, )\d+"
)
SLICE = re.compile(r"slice\((\d+), (\d+), (\d+)\)")
LETTERS = "ijklmn"


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a mapping.

    Attributes:
        left: a source and its steps.
        right: the name of what is made of it.
        shape: of what is made.
        count: how many arrays of the right it stands for.
    """

    left: str
    right: str
    shape: tuple[int, ...]
    count: int = 1


def grouped(lines: Sequence[Line]) -> list[Line]:
    """Groups lines: over words such as `{q,k,v}`, then over numbers."""
    return group_numbers(group_splits(shorten_lists(lines)))


def shorten_lists(lines: Sequence[Line]) -> list[Line]:
    """Writes `[x.0; x.1; x.2]` as `[x.{0..2}]`."""
    found = []
    for line in lines:
        match = re.match(r"\[([^\[\]]+)\](.*)$", line.left)
        left = line.left
        if match:
            parts = match[1].split("; ")
            short = _merge_words(parts)
            if short is not None and len(parts) > 1:
                left = f"[{short}]{match[2]}"
        found.append(dataclasses.replace(line, left=left))
    return found


def _merge_words(texts: Sequence[str]) -> str | None:
    """Merges texts that differ in one place, as `a.{q,k}.b`."""
    start = 0
    while all(len(t) > start and t[start] == texts[0][start] for t in texts):
        start += 1
    rest = [t[start:] for t in texts]
    end = 0
    while all(len(t) > end and t[-1 - end] == rest[0][-1 - end] for t in rest):
        end += 1
    middles = [t[: len(t) - end] for t in rest]
    if any(not re.fullmatch(r"\w+", t) for t in middles):
        return None
    numbers = [int(t) for t in middles if t.isdigit()]
    if len(numbers) == len(middles) and numbers == list(
        range(numbers[0], numbers[-1] + 1)
    ):
        inner = f"{numbers[0]}..{numbers[-1]}"
    else:
        inner = ",".join(middles)
    tail = texts[0][len(texts[0]) - end :] if end else ""
    return f"{texts[0][:start]}{{{inner}}}{tail}"


def group_splits(lines: Sequence[Line]) -> list[Line]:
    """Writes lines that take all slices of an array as one."""
    groups = collections.defaultdict(list)
    for line in lines:
        key = SLICE.sub("#", line.left, count=1) + str(line.shape)
        groups[key if SLICE.search(line.left) else line.right].append(line)
    found = []
    for members in groups.values():
        merged = _merge_slices(members) if len(members) > 1 else None
        found += members if merged is None else [merged]
    return found


def _merge_slices(lines: Sequence[Line]) -> Line | None:
    ranges = []
    for line in lines:
        match = SLICE.search(line.left)
        if match is None:
            return None
        axis, start, stop = map(int, match.groups())
        ranges.append((start, stop, axis, line))
    ranges.sort(key=lambda r: r[:3])
    if ranges[0][0] != 0 or any(
        a[1] != b[0] or a[2] != b[2]
        for a, b in zip(ranges, ranges[1:], strict=False)
    ):
        return None
    right = _merge_words([line.right for *_, line in ranges])
    if right is None:
        return None
    axis = ranges[0][2]
    where = f", axis {axis}" if axis else ""
    left = SLICE.sub(f"split in {len(ranges)}{where}", lines[0].left, count=1)
    return Line(left, right, lines[0].shape, len(lines))


def group_numbers(lines: Sequence[Line]) -> list[Line]:
    """Groups lines over the numbers in their names, with offsets."""
    groups = collections.defaultdict(list)
    for line in lines:
        key = tuple(NAME_NUMBERS.sub("#", t) for t in (line.left, line.right))
        groups[key, line.shape, line.count].append(line)
    found = []
    for members in groups.values():
        merged = _merge_numbers(members) if len(members) > 1 else None
        found += members if merged is None else [merged]
    return found


def _merge_numbers(lines: Sequence[Line]) -> Line | None:
    """Writes the numbers of lines as variables, if they change together."""
    rows = [
        tuple(
            [int(n) for n in NAME_NUMBERS.findall(text)]
            for text in (line.right, line.left)
        )
        for line in lines
    ]
    variables: list[tuple[int, ...]] = []

    def write(column: tuple[int, ...], is_right: bool) -> str | None:
        if len(set(column)) == 1:
            return str(column[0])
        for letter, known in zip(LETTERS, variables, strict=False):
            offsets = {a - b for a, b in zip(column, known, strict=True)}
            if len(offsets) == 1:
                (offset,) = offsets
                return (
                    f"{{{letter}{offset:+d}}}" if offset else f"{{{letter}}}"
                )
        if not is_right or len(variables) == len(LETTERS):
            return None
        variables.append(column)
        return f"{{{LETTERS[len(variables) - 1]}}}"

    texts = []
    for part, is_right in ((0, True), (1, False)):
        columns = list(zip(*(row[part] for row in rows), strict=True))
        written = [write(column, is_right) for column in columns]
        if None in written:
            return None
        source = lines[0].right if is_right else lines[0].left
        pieces = NAME_NUMBERS.split(source)
        words = [*map(str, written), ""]
        pairs = zip(pieces, words, strict=True)
        texts.append("".join(a + b for a, b in pairs))
    if len(set(zip(*variables, strict=True))) != len(lines):
        return None
    count = sum(line.count for line in lines)
    return Line(texts[1], texts[0], lines[0].shape, count)
