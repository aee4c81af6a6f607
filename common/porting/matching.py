"""Matches the arrays of two sides by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from common.layouts import Layout
from common.porting.settling import unsettled
from common.porting.sides import Side

Names = Mapping[str, str]
"""Canonical names by the names under which an array may be found."""


@dataclasses.dataclass(frozen=True)
class Matched:
    """What names say.

    Attributes:
        canonical: layouts of the target's canonical arrays over source
            arrays.
        problems: why two arrays of one name do not match.
        left: canonical names of the source that have no counterpart.
        right: canonical names of the target that have none.
    """

    canonical: Mapping[str, Layout]
    problems: tuple[str, ...]
    left: tuple[str, ...]
    right: tuple[str, ...]


def match(
    source: Side, target: Side, used: set[str], made: set[str]
) -> Matched:
    """Matches equal names in containers whose names are all equal.

    A field or an index stands for an array only where both sides have the
    same fields or indices: `layer1` to `layer4` and `layer0` to `layer3` are
    not matched, although three names are equal.

    Args:
        source: one side.
        target: the other side.
        used: names of source arrays that are spoken for.
        made: names of target arrays that are spoken for.
    """
    ours, theirs = _free(source, used), _free(target, made)
    pairs: list[tuple[str, str]] = []
    left: list[str] = []
    right: list[str] = []
    _walk(_tree(ours), _tree(theirs), pairs, left, right)
    canonical: dict[str, Layout] = {}
    taken: dict[str, str] = {}
    problems = []
    for name, other in pairs:
        first = taken.setdefault(other, name)
        if first != name:
            problems.append(
                f"{first!r} and {name!r}: got two source arrays for the tied "
                f"target array {other!r}, expected one. If they are equal, "
                "ignore one of them"
            )
            continue
        problem = _compare(source, name, target, other)
        if problem is None:
            canonical[other] = source.canonical[name]
        else:
            problems.append(problem)
    used_names = {name for name, _ in pairs}
    return Matched(
        canonical,
        tuple(problems),
        tuple(n for n in dict.fromkeys(left) if n not in used_names),
        tuple(n for n in dict.fromkeys(right) if n not in taken),
    )


def _free(side: Side, used: set[str]) -> dict[str, str]:
    """Returns the names that are free, of tied arrays all of them."""
    free = {
        name: name
        for name, layout in side.canonical.items()
        if not any(source.name in used for source in layout.sources)
    }
    tied = {
        alias: name for alias, name in side.aliases.items() if name in free
    }
    return free | tied


def _tree(names: Names) -> dict[str, Any]:
    """Returns names as nested dicts, with canonical names as leaves."""
    tree: dict[str, Any] = {}
    for name, canonical in names.items():
        *words, last = name.split(".")
        node = tree
        for word in words:
            inner = node.setdefault(word, {})
            if not isinstance(inner, dict):
                inner = node[word] = {"": inner}
            node = inner
        if isinstance(node.get(last), dict):
            node[last][""] = canonical
        else:
            node[last] = canonical
    return tree


def _walk(ours: Any, theirs: Any, pairs: Any, left: Any, right: Any) -> None:
    """Pairs the leaves of two trees, and notes the names of the others."""
    if not isinstance(ours, dict) and not isinstance(theirs, dict):
        pairs.append((ours, theirs))
        return
    if (
        isinstance(ours, dict)
        and isinstance(theirs, dict)
        and ours.keys() == theirs.keys()
    ):
        for word, child in ours.items():
            _walk(child, theirs[word], pairs, left, right)
        return
    if isinstance(ours, dict) and isinstance(theirs, dict):
        # A field that both have is not in doubt, a number is.
        for word in ours.keys() & theirs.keys():
            if not any(character.isdigit() for character in word):
                _walk(ours[word], theirs[word], pairs, left, right)
            else:
                left += _leaves(ours[word])
                right += _leaves(theirs[word])
        ours, theirs = (
            {w: x for w, x in a.items() if w not in b}
            for a, b in ((ours, theirs), (theirs, ours))
        )
    left += _leaves(ours)
    right += _leaves(theirs)


def _leaves(tree: Any) -> list[str]:
    if not isinstance(tree, dict):
        return [tree]
    return [leaf for child in tree.values() for leaf in _leaves(child)]


def _compare(source: Side, name: str, target: Side, other: str) -> str | None:
    """Tells why two canonical arrays cannot be the same, if so."""
    ours, theirs = source.canonical[name], target.canonical[other]
    lefts = [found.name for found in ours.sources]
    rights = [found.name for found in theirs.sources]
    if ours.shape != theirs.shape:
        return (
            f"{lefts[0]} -> {rights[0]}: got the shape {ours.shape} in "
            f"canonical order, expected {theirs.shape}"
        )
    return unsettled(source, lefts, target, rights, ours.shape)
