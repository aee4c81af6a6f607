"""Names with placeholders, such as `layer.{i+1}.{q,k,v}_proj`."""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

VARIABLE = re.compile(r"([A-Za-z])([+-]\d+)?(?:=(\d+)\.\.(\d+))?$")
PLAIN = re.compile(r"[^\s;{}\[\]()\"#,>]+")
NOTHING = "nothing"
PIECES = re.compile(r"\{([^{}]*)\}")


@dataclasses.dataclass(frozen=True)
class Variable:
    """A placeholder for an index: `{i}`, `{i+1}` or `{i=0..3}`.

    Attributes:
        name: a letter.
        offset: added to the variable to give the index in the name.
        bounds: the first and last value, or `None` for all that fit.
    """

    name: str
    offset: int = 0
    bounds: tuple[int, int] | None = None

    def __str__(self) -> str:
        offset = f"{self.offset:+d}" if self.offset else ""
        bounds = "" if self.bounds is None else "={}..{}".format(*self.bounds)
        return f"{{{self.name}{offset}{bounds}}}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """A placeholder for one of several words: `{q,k,v}`."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{{{','.join(self.words)}}}"


Token = str | Variable | Choice
Key = Any
"""A variable's name, or `(number, words)` for a choice."""


@dataclasses.dataclass(frozen=True)
class Match:
    """A name that a pattern matches.

    Attributes:
        name: the name.
        values: the value of each variable, and the position of the word of
            each choice.
    """

    name: str
    values: tuple[tuple[Key, int], ...]


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A name with placeholders.

    Attributes:
        tokens: literal text and placeholders, in order.
    """

    tokens: tuple[Token, ...]

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Reads a pattern. A name in double quotes has no placeholders.

        Raises:
            ValueError: if a placeholder is neither an index nor a choice.
        """
        text = text.strip()
        if text.startswith('"'):
            return cls((_unquote(text),))
        tokens: list[Token] = []
        for i, piece in enumerate(PIECES.split(text)):
            if i % 2:
                tokens.append(_placeholder(piece, text))
            elif piece:
                if not PLAIN.fullmatch(piece):
                    raise ValueError(
                        f"name {text!r}: got the characters {piece!r}, "
                        "expected a dotted name. Put a name that has spaces, "
                        "brackets or commas in double quotes."
                    )
                tokens.append(piece)
        if not tokens:
            raise ValueError(
                "name: got nothing, expected a dotted name. Write a rule as "
                "`source -> step -> target`."
            )
        return cls(tuple(tokens))

    @property
    def keys(self) -> tuple[Key, ...]:
        """The variables and choices, each once, in order."""
        found: dict[Key, None] = {}
        count = 0
        for token in self.tokens:
            if isinstance(token, Variable):
                found[token.name] = None
            elif isinstance(token, Choice):
                found[count, token.words] = None
                count += 1
        return tuple(found)

    def matches(self, names: Iterable[str]) -> Iterator[Match]:
        """Yields the names that the pattern matches."""
        order, regex = [], ""
        count = 0
        for token in self.tokens:
            if isinstance(token, str):
                regex += re.escape(token)
            elif isinstance(token, Variable):
                regex += r"(\d+)"
                order.append(token)
            else:
                words = sorted(token.words, key=len, reverse=True)
                regex += f"({'|'.join(map(re.escape, words))})"
                order.append((count, token.words))
                count += 1
        compiled = re.compile(regex)
        for name in names:
            found = compiled.fullmatch(name)
            values = None if found is None else _values(order, found.groups())
            if values is not None:
                yield Match(name, tuple(values.items()))

    def __str__(self) -> str:
        if not any(not isinstance(token, str) for token in self.tokens):
            return quote("".join(map(str, self.tokens)))
        return "".join(map(str, self.tokens))


def quote(name: str) -> str:
    """Writes a name such that `Pattern.parse` reads it."""
    is_plain = PLAIN.fullmatch(name) and name != NOTHING
    return name if is_plain else json.dumps(name)


def _unquote(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(
            f"name {text}: got quotes that do not match ({error}), expected "
            "a JSON string. Quote the whole name."
        ) from error
    return found


def _placeholder(text: str, pattern: str) -> Token:
    found = VARIABLE.match(text)
    if found:
        name, offset, first, last = found.groups()
        bounds = None if first is None else (int(first), int(last))
        return Variable(name, int(offset or 0), bounds)
    words = tuple(word.strip() for word in text.split(","))
    if len(words) < 2 or len(set(words)) != len(words):
        raise ValueError(
            f"name {pattern!r}: got the placeholder {{{text}}}, expected an "
            "index as {i}, {i+1} or {i=0..3}, or different words as {q,k,v}. "
            "Close the braces, and write one of these forms between them."
        )
    return Choice(words)


def _values(order: list[Any], groups: Any) -> dict[Key, int] | None:
    """Returns the value of each placeholder, `None` if they contradict."""
    values: dict[Key, int] = {}
    for token, text in zip(order, groups, strict=True):
        if not isinstance(token, Variable):
            values[token] = token[1].index(text)
            continue
        value = int(text) - token.offset
        within = token.bounds is None or (
            token.bounds[0] <= value <= token.bounds[1]
        )
        written_plainly = str(int(text)) == text
        if value < 0 or not within or not written_plainly:
            return None
        if values.setdefault(token.name, value) != value:
            return None
    return values


def pair_keys(
    left: tuple[Key, ...], right: tuple[Key, ...]
) -> tuple[dict[Key, Key], list[Key], list[Key]]:
    """Pairs the placeholders of two patterns.

    Variables pair by name, and choices by equal words. If as many choices
    remain on both sides, and with as many words, then these pair in order.

    Returns:
        The right placeholder of each left one, and those of either side that
        have none.
    """
    pairs = {key: key for key in left if isinstance(key, str) and key in right}
    rest = [key for key in right if key not in pairs.values()]
    for key in left:
        if not isinstance(key, str):
            choices = (k for k in rest if not isinstance(k, str))
            same = next((k for k in choices if k[1] == key[1]), None)
            if same is not None:
                pairs[key] = same
                rest.remove(same)
    ours = [k for k in left if k not in pairs and not isinstance(k, str)]
    theirs = [k for k in rest if not isinstance(k, str)]
    sizes = [len(k[1]) for k in ours], [len(k[1]) for k in theirs]
    if sizes[0] == sizes[1]:
        pairs |= dict(zip(ours, theirs, strict=True))
        rest = [key for key in rest if key not in theirs]
    return pairs, [key for key in left if key not in pairs], rest
