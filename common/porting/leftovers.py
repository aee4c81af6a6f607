"""The error for arrays that a plan does not settle."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from common.porting.folding import fold
from common.porting.grammar import ARROW, Chain, Rule
from common.porting.grouping import Entry, Group, group, is_writable
from common.porting.patterns import NOTHING
from common.porting.sides import Side

MANY = 40
OFFER = (
    "`align(source, target, x)` finds the rules by running both models, and "
    "`diff` shows the lines at which two models differ."
)


def refuse(
    source: Side,
    target: Side,
    arrays: Mapping[str, Any],
    left: list[str],
    right: list[str],
    problems: Iterable[str],
) -> None:
    """Raises an error if anything is left over or does not match.

    Args:
        source: one side.
        target: the other side.
        arrays: of the source, by name.
        left: names of source arrays that are left over.
        right: names of target arrays that are left over.
        problems: what else is wrong.

    Raises:
        ValueError: naming all of them, with rules to paste.
    """
    problems = list(problems)
    if not (left or right or problems):
        return
    if problems and all(x.startswith("batch norm") for x in problems):
        if not (left or right):
            raise ValueError(f"port: {'; '.join(problems)}.")
    lines = [f"  {problem}." for problem in problems]
    lines += [f"  source {text}" for text in _listed(left, source, arrays)]
    lines += [f"  target {text}" for text in _listed(right, target, {})]
    lines = [fold(line) for line in lines]
    lines.append("Rules to paste, once you have checked them:")
    lines += [f"  {rule}" for rule in suggest(source, target, left, right)]
    raise ValueError(
        f"port: got {len(left)} source arrays and {len(right)} target arrays "
        f"without a counterpart, and {len(problems)} pairs that do not match, "
        "expected none.\n" + "\n".join(lines) + "\nPass `rules`, or list "
        f"arrays in `ignore` or `keep`. {OFFER}"
    )


def _listed(
    names: list[str], side: Side, arrays: Mapping[str, Any]
) -> list[str]:
    """Names arrays; if they are many, those that differ in a number as one."""
    if len(names) <= MANY:
        return [_shown(name, side, arrays) for name in names]
    entries = [
        Entry((name,), f"{info.shape} {info.dtype}", (name,))
        for name, info in side.infos.items()
        if name in names
    ]
    return [
        f"{one.source} {one.steps}" + f" ({len(one.entries)}x)"
        for one in group(entries, _is_bounded)
    ]


def _is_bounded(one: Group) -> bool:
    return "=" in str(one.source)


def _shown(name: str, side: Side, arrays: Mapping[str, Any]) -> str:
    info = side.infos[name]
    text = f"{name} {info.shape} {info.dtype}"
    x = arrays.get(name)
    if (
        x is None
        or not hasattr(x, "__array__")
        or info.dtype.startswith("key")
    ):
        return text
    values = np.abs(np.asarray(x, np.float64)) if np.size(x) else np.zeros(1)
    return f"{text}, largest magnitude {values.max():.3g}"


def suggest(
    source: Side, target: Side, left: list[str], right: list[str]
) -> list[str]:
    """Returns rules that pair arrays of one kind and shape in order.

    They are a guess, for the user to check.
    """
    theirs: dict[Any, list[str]] = {}
    for name in right:
        theirs.setdefault(_kind(target, name), []).append(name)
    ours: dict[Any, list[str]] = {}
    for name in left:
        ours.setdefault(_kind(source, name), []).append(name)
    entries, rest = [], []
    for kind, names in ours.items():
        others = theirs.get(kind, [])
        if len(others) != len(names):
            rest += names
            continue
        del theirs[kind]
        names, others = (sorted(x, key=_natural) for x in (names, others))
        pairs = zip(names, others, strict=True)
        entries += [Entry((a,), (), (b,)) for a, b in pairs]
    rules = [
        str(Rule(Chain(one.source), one.target))
        for one in group(entries, _is_readable)
    ]
    unpaired = [name for names in theirs.values() for name in names]
    rules += [f"{text} {ARROW} {NOTHING}" for text in _patterns(rest)]
    rules += [f"{NOTHING} {ARROW} {text}" for text in _patterns(unpaired)]
    return rules


def _patterns(names: list[str]) -> list[str]:
    """Returns patterns that match these names."""
    entries = [Entry((name,), (), (name,)) for name in names]
    return [str(one.source) for one in group(entries, _is_readable)]


def _is_readable(one: Group) -> bool:
    return is_writable(one.source) and is_writable(one.target)


def _kind(side: Side, name: str) -> Any:
    """Returns what arrays that may correspond have in common."""
    for canonical, layout in side.canonical.items():
        if [source.name for source in layout.sources] == [name]:
            return canonical.rpartition(".")[2], layout.shape
    return name.rpartition(".")[2], side.infos[name].shape


def _natural(name: str) -> list[Any]:
    """Returns a key that sorts `layer10` after `layer9`."""
    words: list[Any] = []
    text, digits = "", ""
    for character in f"{name} ":
        if character.isdigit():
            digits += character
            continue
        if digits:
            words.append((text, int(digits)))
            text, digits = "", ""
        text += character
    return [*words, (text, -1)]
