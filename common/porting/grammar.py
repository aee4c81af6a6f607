"""The text of rules: `source -> step -> ... -> target`, one on a line.

A source is a name, or several parts to join: `[a; b -> transpose]`. A step is
a word, or a word with literal arguments as in Python: `transpose(2, 0, 1)`.
"""

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from common.porting.patterns import NOTHING, Pattern

ARROW = "->"
OPENING, CLOSING = "[({", "])}"


@dataclasses.dataclass(frozen=True)
class Call:
    """A step as it is written.

    Attributes:
        word: the name of the step.
        arguments: positional arguments.
        options: arguments by name, sorted.
    """

    word: str
    arguments: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        words = [literal(x) for x in self.arguments]
        words += [f"{name}={literal(x)}" for name, x in self.options]
        return f"{self.word}({', '.join(words)})" if words else self.word


@dataclasses.dataclass(frozen=True)
class Chain:
    """A source and its steps.

    Attributes:
        source: a pattern, several chains to join, the call `derive(...)`, or
            `None` if an array of the target is left alone.
        steps: in order.
    """

    source: "Pattern | tuple[Chain, ...] | Call | None"
    steps: tuple[Call, ...] = ()

    def __str__(self) -> str:
        start = NOTHING if self.source is None else str(self.source)
        if isinstance(self.source, tuple):
            start = f"[{'; '.join(map(str, self.source))}]"
        return f" {ARROW} ".join([start, *map(str, self.steps)])


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule as it is written: a chain, and what it leads to.

    Attributes:
        chain: the source and its steps.
        target: `None` if an array of the source is left out.
    """

    chain: Chain
    target: Pattern | None

    def __str__(self) -> str:
        target = NOTHING if self.target is None else str(self.target)
        return f"{self.chain} {ARROW} {target}"


def parse_rules(rules: Any) -> list[Rule]:
    """Reads rules from text, or from a mapping.

    Args:
        rules: lines of text, of which empty ones and those that start with
            `#` are left out; or the part of each rule after the first arrow,
            by its source. A value of `derive(...)` is under its target.

    Raises:
        ValueError: naming the rule that cannot be read.
        TypeError: if the rules are neither text nor a mapping of text.
    """
    if isinstance(rules, str):
        lines = [line.strip() for line in rules.splitlines()]
        return [parse(x) for x in lines if x and not x.startswith("#")]
    if not isinstance(rules, Mapping) or not all(
        isinstance(x, str) for pair in rules.items() for x in pair
    ):
        raise TypeError(
            f"rules: got {type(rules).__name__}, expected a plan, text, or a "
            "dict of text. Write each rule as `source -> step -> target`."
        )
    return [
        parse(f"{x} {ARROW} {name}")
        if x.startswith("derive(") and len(_split(x, ARROW)) == 1
        else parse(f"{name} {ARROW} {x}")
        for name, x in rules.items()
    ]


def parse(text: str) -> Rule:
    """Reads one rule.

    Raises:
        ValueError: if it cannot be read.
    """
    parts = _split(text, ARROW)
    if len(parts) < 2:
        raise ValueError(
            f"rule {text!r}: got no arrow, expected `source -> target`. Put "
            "an arrow between the source, each step and the target."
        )
    try:
        target = None if parts[-1] == NOTHING else Pattern.parse(parts[-1])
        return Rule(_chain(parts[:-1]), target)
    except ValueError as error:
        raise ValueError(f"rule {text!r}: {error}") from error


def _chain(parts: list[str]) -> Chain:
    steps = tuple(map(parse_call, parts[1:]))
    source = parts[0]
    if source.startswith("["):
        inner = _split(source[1:-1], ";")
        if not all(inner):
            raise ValueError(
                f"got the source {source!r}, expected parts as `[a; b]`. "
                "Name each part."
            )
        chains = (_chain(_split(part, ARROW)) for part in inner)
        return Chain(tuple(chains), steps)
    if source == NOTHING:
        return Chain(None, steps)
    if source.startswith("derive("):
        return Chain(parse_call(source), steps)
    return Chain(Pattern.parse(source), steps)


def parse_call(text: str) -> Call:
    """Reads a step.

    Raises:
        ValueError: if the text is not a word with literal arguments.
    """
    wrong = ValueError(
        f"got the step {text!r}, expected a word with literal arguments, "
        "such as `transpose(2, 0, 1)`. Put a comma between arguments, and "
        "`->` between steps."
    )
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return Call(node.id)
        if not (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ):
            raise wrong
        arguments = tuple(map(ast.literal_eval, node.args))
        options = {
            str(k.arg): ast.literal_eval(k.value) for k in node.keywords
        }
    except (SyntaxError, ValueError) as error:
        raise wrong from error
    return Call(node.func.id, arguments, tuple(sorted(options.items())))


def _split(text: str, separator: str) -> list[str]:
    """Splits at a separator that is in no bracket and in no quotes."""
    parts, depth, quoted, start, i = [], 0, False, 0, 0
    while i < len(text):
        character = text[i]
        if quoted:
            i += character == "\\"
            quoted = character != '"'
        elif character == '"':
            quoted = True
        elif character in OPENING:
            depth += 1
        elif character in CLOSING:
            depth -= 1
        elif depth == 0 and text.startswith(separator, i):
            parts.append(text[start:i].strip())
            start = i + len(separator)
            i = start - 1
        i += 1
    if depth or quoted:
        raise ValueError(
            f"rule {text!r}: got brackets that do not match, expected each to "
            "be closed. Close the bracket or the quotes."
        )
    return [*parts, text[start:].strip()]


def literal(x: Any) -> str:
    """Writes a value such that `ast.literal_eval` reads it."""
    if isinstance(x, list | tuple):
        inner = ", ".join(map(literal, x))
        if isinstance(x, list):
            return f"[{inner}]"
        return f"({inner},)" if len(x) == 1 else f"({inner})"
    if isinstance(x, float) and x in (float("inf"), -float("inf")):
        return f"{'-' * (x < 0)}1e999"
    return repr(x)
