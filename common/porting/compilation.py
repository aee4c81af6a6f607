"""Turns rules into the layouts of two sides."""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from common.layouts import Layout, compose, simplify
from common.porting.copies import invert_beside
from common.porting.grammar import Call, Chain, Rule
from common.porting.patterns import Key, Match, Pattern, pair_keys
from common.porting.settling import settle, unsettled
from common.porting.sides import Side
from common.porting.steps import CUTS, JOINS, build_steps, cut, join

Dims = tuple[Key, ...]
Table = dict[tuple[int, ...], Layout]


@dataclasses.dataclass
class Compiled:
    """What rules say.

    Attributes:
        layouts: of target arrays over source arrays.
        canonical: of the target's canonical arrays over source arrays.
        derived: the values of target arrays that are given in the rules.
        ignored: names of source arrays.
        kept: names of target arrays.
        copies: of source arrays over others that hold the same values.
    """

    layouts: dict[str, Layout] = dataclasses.field(default_factory=dict)
    canonical: dict[str, Layout] = dataclasses.field(default_factory=dict)
    derived: dict[str, Any] = dataclasses.field(default_factory=dict)
    ignored: list[str] = dataclasses.field(default_factory=list)
    kept: list[str] = dataclasses.field(default_factory=list)
    copies: dict[str, Layout] = dataclasses.field(default_factory=dict)


def compile_rules(
    rules: Iterable[Rule], source: Side, target: Side
) -> Compiled:
    """Turns rules into layouts, in the direction in which they fit.

    A rule leads from the source to the target as it is written, or, if its
    names are those of the other side, in the inverse direction.

    Raises:
        ValueError: naming a rule that fits neither way.
    """
    forward, backward = Compiled(), Compiled()
    for rule in rules:
        found, sides = forward, (source, target)
        if not _fits(rule, *sides) and _fits(rule, target, source):
            found, sides = backward, (target, source)
        try:
            _compile(rule, *sides, found)
        except ValueError as error:
            if str(error).startswith("rule "):
                raise
            raise ValueError(f"rule '{rule}': {error}") from error
    layouts = backward.layouts | from_canonical(backward.canonical, source)
    made = from_canonical(forward.canonical, target) | forward.layouts
    added, forward.copies = invert_beside(made, layouts)
    for name, layout in added.items():
        _add(forward.layouts, name, layout)
    forward.ignored += [*backward.kept, *backward.derived]
    forward.kept += backward.ignored
    return forward


def from_canonical(
    canonical: Mapping[str, Layout], side: Side
) -> dict[str, Layout]:
    """Returns the layouts of a side's arrays whose canonical ones are known.

    Args:
        canonical: layouts of canonical arrays of the side.
        side: the side.
    """
    whole = {
        name: layout
        for name, layout in side.native.items()
        if all(source.name in canonical for source in layout.sources)
    }
    return compose(canonical, whole)


def _fits(rule: Rule, source: Side, target: Side) -> bool:
    """Tells whether the names of a rule are in the sides."""
    parts = _patterns(rule.chain)
    ends = [] if rule.target is None else [rule.target]
    return all(_find(part, source)[1] for part in parts) and all(
        _find(end, target)[1] for end in ends
    )


def _patterns(chain: Chain) -> list[Pattern]:
    if isinstance(chain.source, Pattern):
        return [chain.source]
    if isinstance(chain.source, tuple):
        return [part for inner in chain.source for part in _patterns(inner)]
    return []


def _find(pattern: Pattern, side: Side) -> tuple[bool, list[Match]]:
    """Returns whether a pattern names modules, and what it matches."""
    found = list(pattern.matches(side.infos))
    if found:
        return False, found
    others = [*side.aliases, *side.canonical]
    found = [
        dataclasses.replace(match, name=side.named(match.name))
        for match in pattern.matches(dict.fromkeys(others))
        if side.named(match.name) in side.infos
    ]
    if found:
        return False, found
    return True, list(pattern.matches(side.modules))


def _require(pattern: Pattern, side: Side) -> tuple[bool, list[Match]]:
    is_module, found = _find(pattern, side)
    if not found:
        names = [*side.infos, *side.modules]
        close = difflib.get_close_matches(str(pattern), names, 3, 0.3)
        raise ValueError(
            f"got {str(pattern)!r}, which is no array or module of the "
            f"{side.what}, expected one of its names, such as "
            f"{close or names[:3]}. `print` the names of both sides with "
            "`NativeModel(model).arrays()`, and use one of them."
        )
    return is_module, found


def _compile(rule: Rule, source: Side, target: Side, found: Compiled) -> None:
    if rule.target is None:
        for pattern in _patterns(rule.chain):
            found.ignored += expand(pattern, source)
        return
    if rule.chain.source is None:
        found.kept += expand(rule.target, target)
        return
    if isinstance(rule.chain.source, Call):
        for name in expand(rule.target, target):
            found.derived[name] = rule.chain.source.arguments[0]
        return
    modules, ends = _require(rule.target, target)
    parts = [_require(part, source) for part in _patterns(rule.chain)]
    if any(is_module != modules for is_module, _ in parts):
        raise ValueError(
            "got a module on one side and an array on the other, expected "
            "two of a kind. Name the arrays on both sides."
        )
    if modules:
        inside = target.modules
        leaves = dict.fromkeys(
            leaf for match in ends for leaf in inside[match.name]
        )
        for leaf in leaves:
            _compile_leaf(rule, source, target, found, leaf)
    else:
        _compile_leaf(rule, source, target, found, None)


def expand(pattern: Pattern, side: Side) -> list[str]:
    """Returns the names of the arrays that a pattern names.

    Raises:
        ValueError: if there are none.
    """
    is_module, found = _require(pattern, side)
    if not is_module:
        return [match.name for match in found]
    modules = side.modules
    return list(
        dict.fromkeys(
            one.name
            for match in found
            for name in modules[match.name].values()
            for one in side.canonical[name].sources
        )
    )


def _compile_leaf(
    rule: Rule, source: Side, target: Side, found: Compiled, leaf: str | None
) -> None:
    """Compiles a rule for arrays, or for one array of each module."""
    if rule.target is None:
        return
    left = tuple(
        dict.fromkeys(k for p in _patterns(rule.chain) for k in p.keys)
    )
    pairs, _, theirs = pair_keys(left, rule.target.keys)
    groups: dict[tuple[int, ...], dict[tuple[int, ...], str]] = {}
    for match in _find(rule.target, target)[1]:
        values = dict(match.values)
        shared = tuple(values[key] for key in pairs.values())
        rest = tuple(values[key] for key in theirs)
        groups.setdefault(shared, {})[rest] = match.name
    made = False
    for shared, names in groups.items():
        lookup = _lookup(source, dict(zip(pairs, shared, strict=True)), leaf)
        cuts = {
            key: sorted({where[i] for where in names})
            for i, key in enumerate(theirs)
        }
        dims, table = _evaluate(rule.chain, lookup, cuts)
        if not table:
            continue
        if any(key not in theirs for key in dims):
            raise ValueError(
                f"got {len(table)} sources for {sorted(names.values())}, "
                "expected one, or a step that joins them. Add the step "
                "`concatenate` or `stack`."
            )
        for rest, name in names.items():
            chosen = tuple(rest[theirs.index(key)] for key in dims)
            _end(rule, source, target, found, leaf, name, table[chosen])
            made = True
    if not made and leaf is None:
        raise ValueError(
            "got no index for which both a source and a target exist, "
            "expected some. Correct the offset, as in {i+1}."
        )


def _end(
    rule: Rule,
    source: Side,
    target: Side,
    found: Compiled,
    leaf: str | None,
    name: str,
    layout: Layout,
) -> None:
    """Notes the layout of a target."""
    if leaf is not None:
        canonical = target.modules[name].get(leaf)
        if canonical is not None:
            own = target.canonical[canonical]
            _require_shape(name, layout, own.shape)
            problem = unsettled(
                source,
                [x.name for x in layout.sources],
                target,
                [x.name for x in own.sources],
                own.shape,
                has_steps=bool(rule.chain.steps),
            )
            if problem is not None:
                raise ValueError(f"{problem}.")
            _add(found.canonical, canonical, layout)
        return
    shape = target.infos[name].shape
    if not rule.chain.steps and isinstance(rule.chain.source, Pattern):
        layout = settle(source, layout.sources[0].name, target, name)
    _require_shape(name, layout, shape)
    _add(found.layouts, name, layout)


def _require_shape(name: str, layout: Layout, shape: Any) -> None:
    if layout.shape != tuple(shape):
        raise ValueError(
            f"{name}: got the shape {layout.shape}, expected {shape}. "
            "Add, remove or reorder steps of the rule until it ends in the "
            "latter; the steps run from left to right."
        )


def _add(layouts: dict[str, Layout], name: str, layout: Layout) -> None:
    """Adds a layout, unless there is another one of that name."""
    layout = simplify(layout)
    old = layouts.setdefault(name, layout)
    if old != layout:
        raise ValueError(
            f"rules for {name!r}: got both '{old}' and '{layout}', expected "
            "one. Remove a rule."
        )


def _lookup(
    source: Side, binding: Mapping[Key, int], leaf: str | None
) -> Callable[[Pattern], tuple[Dims, Table]]:
    """Returns the function that finds the arrays of a pattern."""

    def find(pattern):
        free = tuple(key for key in pattern.keys if key not in binding)
        table: Table = {}
        for match in _find(pattern, source)[1]:
            values = dict(match.values)
            if any(values[k] != binding[k] for k in values if k in binding):
                continue
            layout = _start(source, match.name, leaf)
            if layout is not None:
                table[tuple(values[key] for key in free)] = layout
        return free, table

    return find


def _start(source: Side, name: str, leaf: str | None) -> Layout | None:
    if leaf is None:
        return Layout.of(name, source.infos[name].shape)
    canonical = source.modules[name].get(leaf)
    return None if canonical is None else source.canonical[canonical]


def _evaluate(
    chain: Chain,
    lookup: Callable[[Pattern], tuple[Dims, Table]],
    cuts: Mapping[Key, list[int]],
) -> tuple[Dims, Table]:
    """Applies the steps of a chain to all arrays that it starts from.

    Args:
        chain: with any number of joins and cuts.
        lookup: finds the arrays of a pattern.
        cuts: the values of each placeholder that only the target has.
    """
    steps = list(chain.steps)
    if isinstance(chain.source, tuple):
        parts = [_evaluate(part, lookup, {}) for part in chain.source]
        if not all(table for _, table in parts):
            return (), {}
        joins = bool(steps) and steps[0].word in JOINS
        if any(dims for dims, _ in parts) or not joins:
            raise ValueError(
                "got parts in brackets that are several arrays or are not "
                "joined, expected `[a; b] -> concatenate`. Name each part."
            )
        layouts = tuple(table[()] for _, table in parts)
        joined = join(steps.pop(0), [layout.shape for layout in layouts])
        dims, table = (), {(): Layout(layouts, joined)}
    elif isinstance(chain.source, Pattern):
        dims, table = lookup(chain.source)
    else:
        return (), {}
    rest = dict(cuts)
    for step in steps:
        if not table:
            break
        if step.word in JOINS:
            ours = [key for key in dims if key not in cuts]
            key = _choose(step, ours, step.word == "concatenate")
            dims, table = _join(step, dims, table, key)
        elif step.word in CUTS:
            key = _choose(step, rest, step.word == "split")
            table = _cut(step, table, rest.pop(key))
            dims = (*dims, key)
        else:
            table = {
                where: layout.then(*build_steps(step, layout.shape))
                for where, layout in table.items()
            }
    return dims, table


def _choose(step: Call, keys: Iterable[Key], words_first: bool) -> Key:
    """Returns the placeholder that a join or a cut belongs to."""
    keys = list(keys)
    if not keys:
        raise ValueError(
            f"step {step}: got no placeholder that only one side has, "
            "expected one, such as {q,k,v}. Write the names of the pieces "
            "with a placeholder."
        )
    words = [key for key in keys if not isinstance(key, str)]
    numbers = [key for key in keys if isinstance(key, str)]
    return (words or numbers)[-1] if words_first else (numbers or words)[-1]


def _join(
    step: Call, dims: Dims, table: Table, key: Key
) -> tuple[Dims, Table]:
    """Joins the arrays along a placeholder of the source."""
    axis = dims.index(key)
    groups: dict[tuple[int, ...], dict[int, Layout]] = {}
    for where, layout in table.items():
        rest = where[:axis] + where[axis + 1 :]
        groups.setdefault(rest, {})[where[axis]] = layout
    joined: Table = {}
    for rest, parts in groups.items():
        layouts = tuple(parts[i] for i in sorted(parts))
        shapes = [layout.shape for layout in layouts]
        joined[rest] = Layout(layouts, join(step, shapes))
    return dims[:axis] + dims[axis + 1 :], joined


def _cut(step: Call, table: Table, values: list[int]) -> Table:
    """Takes each array apart along a placeholder of the target."""
    return {
        (*where, value): layout.then(piece)
        for where, layout in table.items()
        for value, piece in zip(
            values, cut(step, layout.shape, len(values)), strict=True
        )
    }
