"""Groups rules that differ only in numbers, and names in a word."""

import dataclasses
import os.path
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from common.porting.patterns import (
    PLAIN,
    Choice,
    Pattern,
    Token,
    Variable,
)

NUMBER = re.compile(r"(0|[1-9]\d*)")
HEAD, TAIL = re.compile(r"[A-Za-z0-9]+$"), re.compile(r"^[A-Za-z0-9]+")
LETTERS = "ijkmnopqrstuvw"


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a rule says without placeholders for numbers.

    Attributes:
        sources: the names of the source arrays, in order.
        steps: the text of the steps.
        targets: the names of the target arrays, in order.
    """

    sources: tuple[str, ...]
    steps: Any
    targets: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Group:
    """Entries that one rule says.

    Attributes:
        source: the pattern of the sources.
        steps: of all entries.
        target: the pattern of the targets.
        entries: in order.
    """

    source: Pattern
    steps: Any
    target: Pattern
    entries: tuple[Entry, ...]

    def bounded(self) -> "Group":
        """Returns the group with the bounds of each variable."""
        return dataclasses.replace(
            self,
            source=_bounded(self.source, self.entries, 0),
            target=_bounded(self.target, self.entries, 1),
        )


def group(
    entries: Iterable[Entry], confirm: Callable[[Group], bool]
) -> list[Group]:
    """Returns groups that together say what the entries say.

    Args:
        entries: in order.
        confirm: tells whether a group says what its entries say.
    """
    families: dict[Any, list[tuple[Entry, tuple[int, ...]]]] = {}
    for entry in entries:
        source, target = _template(entry.sources), _template(entry.targets)
        shape, numbers = _skeleton(source, target)
        families.setdefault((shape, entry.steps), []).append((entry, numbers))
    found = []
    for family in families.values():
        found += _split(family, confirm)
    return found


def single(entry: Entry) -> Group:
    """Returns the group of one entry."""
    source, target = _template(entry.sources), _template(entry.targets)
    return Group(_named(source, ()), entry.steps, _named(target, ()), (entry,))


def _split(
    family: list[tuple[Entry, tuple[int, ...]]],
    confirm: Callable[[Group], bool],
) -> Iterator[Group]:
    """Yields the largest groups of a family that can be confirmed."""
    classes = _classes([numbers for _, numbers in family])
    if len(family) > 1 and classes is not None:
        made = _make(family, classes)
        for candidate in (made, made.bounded()):
            if confirm(candidate):
                yield candidate
                return
    if len(family) == 1:
        yield single(family[0][0])
        return
    # The parts have one value of the first number, or a run of values.
    numbers = [n for _, n in family]
    varying = [
        i
        for i, column in enumerate(zip(*numbers, strict=True))
        if len(set(column)) > 1
    ]
    if not varying:
        for entry, _ in family:
            yield single(entry)
        return
    for part in _parts(family, varying, classes is None):
        if len(part) == len(family):
            for entry, _ in family:
                yield single(entry)
            return
        yield from _split(part, confirm)


def _parts(family: Any, varying: list[int], ragged: bool) -> list[Any]:
    first = varying[0]
    if ragged:
        by_value: dict[int, list[Any]] = {}
        for member in family:
            by_value.setdefault(member[1][first], []).append(member)
        if len(by_value) < len(family):
            return list(by_value.values())
    ordered = sorted(family, key=_reader(first))
    runs: list[list[Any]] = []
    for member in ordered:
        last = runs[-1][-1][1] if runs else None
        steady = last is not None and all(
            member[1][i] - last[i] == 1 for i in varying
        )
        if steady:
            runs[-1].append(member)
        else:
            runs.append([member])
    return runs


def _reader(position: int) -> Callable[[Any], int]:
    def key(member):
        return member[1][position]

    return key


def _classes(numbers: list[tuple[int, ...]]) -> list[list[int]] | None:
    """Groups the positions of numbers that go up together.

    Returns:
        The classes of positions, or `None` if the numbers do not run over a
        whole product of ranges.
    """
    columns = list(zip(*numbers, strict=True))
    classes: dict[tuple[int, ...], list[int]] = {}
    for i, column in enumerate(columns):
        if len(set(column)) > 1:
            start = min(column)
            classes.setdefault(tuple(x - start for x in column), []).append(i)
    size = 1
    for relative in classes:
        values = set(relative)
        size *= len(values)
        if values != set(range(len(values))):
            return None
    whole = size == len(numbers) == len(set(zip(*classes, strict=True)))
    return list(classes.values()) if whole and classes else None


def _make(
    family: list[tuple[Entry, tuple[int, ...]]], classes: list[list[int]]
) -> Group:
    entry, numbers = family[0]
    least = {i: min(n[i] for _, n in family) for one in classes for i in one}
    tokens: dict[int, Variable] = {}
    for letter, positions in zip(LETTERS, classes, strict=False):
        start = min(least[i] for i in positions)
        for i in positions:
            tokens[i] = Variable(letter, least[i] - start)
    source, target = _template(entry.sources), _template(entry.targets)
    count = _count(source)
    split = list(tokens.items())
    used = len(classes)
    return Group(
        _named(source, [(i, t) for i, t in split if i < count], used),
        entry.steps,
        _named(target, [(i - count, t) for i, t in split if i >= count], used),
        tuple(entry for entry, _ in family),
    )


def _bounded(pattern: Pattern, entries: Any, side: int) -> Pattern:
    """Adds the bounds of each variable to a pattern."""
    names = [n for e in entries for n in (e.sources, e.targets)[side]]
    values: dict[Any, list[int]] = {}
    for match in pattern.matches(names):
        for key, value in match.values:
            values.setdefault(key, []).append(value)
    return Pattern(
        tuple(
            dataclasses.replace(
                token,
                bounds=(min(values[token.name]), max(values[token.name])),
            )
            if isinstance(token, Variable) and token.name in values
            else token
            for token in pattern.tokens
        )
    )


def _template(names: tuple[str, ...]) -> tuple[Token, ...]:
    """Returns the text that names share, with a placeholder for the rest."""
    if len(names) == 1:
        return (names[0],)
    numbers = [[int(x) for x in NUMBER.findall(name)] for name in names]
    texts = {NUMBER.sub("0", name) for name in names}
    if len(texts) == 1 and len({len(n) for n in numbers}) == 1:
        columns = list(zip(*numbers, strict=True))
        varying = [i for i, c in enumerate(columns) if len(set(c)) > 1]
        if len(varying) == 1:
            column, position = columns[varying[0]], varying[0]
            start = column[0]
            if list(column) == list(range(start, start + len(names))):
                parts = NUMBER.split(names[0])
                at = 2 * position + 1
                return _joined(
                    "".join(parts[:at]),
                    Variable("n", start),
                    "".join(parts[at + 1 :]),
                )
    before = HEAD.sub("", os.path.commonprefix(list(names)))
    rest = [name[len(before) :] for name in names]
    after = os.path.commonprefix([x[::-1] for x in rest])[::-1]
    after = TAIL.sub("", after)
    words = tuple(x[: len(x) - len(after)] for x in rest)
    return _joined(before, Choice(words), after)


def _joined(before: str, token: Token, after: str) -> tuple[Token, ...]:
    return tuple(x for x in (before, token, after) if x != "")


def _skeleton(source: Any, target: Any) -> tuple[Any, tuple[int, ...]]:
    """Returns the text without numbers, and the numbers."""
    shape, numbers = [], []
    for token in (*source, None, *target):
        if isinstance(token, str):
            shape.append(NUMBER.sub("#", token))
            numbers += map(int, NUMBER.findall(token))
        else:
            shape.append(token)
    return tuple(shape), tuple(numbers)


def _count(template: tuple[Token, ...]) -> int:
    literals = (token for token in template if isinstance(token, str))
    return sum(len(NUMBER.findall(token)) for token in literals)


def _named(template: Any, variables: Any, used: int = 0) -> Pattern:
    """Puts variables in the place of numbers."""
    chosen = dict(variables)
    tokens: list[Token] = []
    position = 0
    for token in template:
        if isinstance(token, Variable):
            tokens.append(dataclasses.replace(token, name=LETTERS[used]))
        elif isinstance(token, Choice):
            tokens.append(token)
        else:
            text = ""
            for i, piece in enumerate(NUMBER.split(token)):
                if i % 2 == 0:
                    text += piece
                    continue
                if position in chosen:
                    tokens += [text] if text else []
                    tokens.append(chosen[position])
                    text = ""
                else:
                    text += piece
                position += 1
            tokens += [text] if text else []
    return Pattern(tuple(tokens))


def is_writable(pattern: Pattern) -> bool:
    """Tells whether `Pattern.parse` reads what a pattern prints."""
    literal = all(isinstance(token, str) for token in pattern.tokens)
    if literal:
        return True
    for token in pattern.tokens:
        words = (token,) if isinstance(token, str) else ()
        if isinstance(token, Choice):
            words = token.words
        if not all(PLAIN.fullmatch(word) for word in words):
            return False
    return True
