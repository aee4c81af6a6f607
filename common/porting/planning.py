"""Makes the plan of a port: rules first, then names, then batch norm."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from common.layouts import Layout, Reshape, Role, Transpose, simplify
from common.porting.arithmetic import Divide
from common.porting.batch_norm import (
    COUNTER,
    FIRST,
    convert,
    extras,
    norms,
    undivided,
)
from common.porting.compilation import (
    Compiled,
    compile_rules,
    expand,
    from_canonical,
)
from common.porting.endpoints import Given
from common.porting.folding import fold
from common.porting.grammar import parse_rules
from common.porting.leftovers import refuse
from common.porting.matching import Matched, match
from common.porting.patterns import Pattern
from common.porting.plan import Plan
from common.porting.settings import differing
from common.porting.sides import Side
from common.tensors import Stored

CHANNELS_LAST = ("flax",)


def make_plan(
    given: Given,
    target: Side,
    *,
    rules: Any = None,
    ignore: Iterable[str] = (),
    keep: Iterable[str] = (),
    batch_norm: str | None = None,
    flatten: Mapping[str, tuple[int, ...]] | None = None,
) -> Plan:
    """Makes the plan of a port, or refuses; see `port` for the arguments.

    Raises:
        ValueError: naming every array that the plan does not settle.
    """
    source = given.side
    if not source.infos or not target.infos:
        side = target if source.infos else source
        raise ValueError(
            f"{side.what}: got a model with no arrays, expected one with "
            "weights. Pass the object that the constructor returned."
        )
    said = _said(rules, source, target)
    without_source = [*said.kept]
    for names, side, found in (
        (ignore, source, said.ignored),
        (keep, target, said.kept),
    ):
        for name in [names] if isinstance(names, str) else names:
            found += expand(Pattern.parse(name), side)
    matched = _match(given, target, said)
    canonical = said.canonical | dict(matched.canonical)
    canonical |= _random_state(source, target, said)
    for path, sizes in (flatten or {}).items():
        _flatten(canonical, path, sizes, source, target)
    layouts = from_canonical(canonical, target) | said.layouts
    pairs = norm_pairs(layouts, source, target)
    layouts, served = undivided(layouts, pairs, source, target)
    normed = convert(
        source,
        target,
        given.arrays,
        pairs,
        batch_norm,
        is_state=given.state is not None,
        served=served,
    )
    _divide(layouts, normed.divide, target)
    derived = normed.derived | said.derived
    # Rules of `align` keep the flags of batch norms, which have no source.
    known = {*without_source} & normed.derived.keys()
    said.kept[:] = [name for name in said.kept if name not in known]
    layouts = {n: x for n, x in layouts.items() if n not in normed.derived}
    said.ignored += normed.dropped
    _copy_counters(layouts, pairs, source, target, {*derived, *said.kept})
    _leave_random_state(layouts, said, source, target)
    layouts = {n: x for n, x in layouts.items() if n not in said.kept}
    used = {s.name for x in layouts.values() for s in x.sources}
    copies = {n: x for n, x in said.copies.items() if n not in said.ignored}
    refuse(
        source,
        target,
        # Not to read a file of which something is missing.
        {} if isinstance(given.arrays, Stored) else given.arrays,
        sorted(source.infos.keys() - used - set(said.ignored) - copies.keys()),
        sorted(
            target.infos.keys()
            - layouts.keys()
            - set(said.kept)
            - set(derived)
        ),
        (*matched.problems, *normed.problems),
    )
    return Plan(
        layouts,
        dict(source.infos),
        dict(target.infos),
        tuple(said.ignored),
        tuple(said.kept),
        (
            *normed.notes,
            *_roles(layouts, source, target),
            *differing(source, target, layouts),
        ),
        derived,
        copies,
    )


def _said(rules: Any, source: Side, target: Side) -> Compiled:
    """Returns what the user's rules say."""
    if rules is None:
        return Compiled()
    # An alignment has its rules as text.
    plan = rules
    if not isinstance(plan, Plan):
        text = getattr(rules, "rules", rules)
        return compile_rules(parse_rules(text), source, target)
    fits = plan.source.keys() <= source.infos.keys()
    fits = fits and plan.target.keys() <= target.infos.keys()
    if not fits:
        plan = plan.inverse()
    unknown = [
        *(plan.source.keys() - source.infos.keys()),
        *(plan.target.keys() - target.infos.keys()),
    ]
    if unknown:
        raise ValueError(
            fold(f"rules: got a plan with the arrays {sorted(unknown)}")
            + ", expected names of the source and the target. Pass a plan "
            "that was made for these two models."
        )
    return Compiled(
        dict(plan.layouts),
        {},
        dict(plan.derived),
        list(plan.ignored),
        list(plan.kept),
        dict(plan.copies),
    )


def _match(given: Given, target: Side, said: Compiled) -> Matched:
    """Matches by name what the rules do not say."""
    source = given.side
    layouts = [*said.layouts.values(), *said.canonical.values()]
    used = {s.name for x in layouts for s in x.sources}
    used |= {*said.ignored, *said.copies}
    made = {*said.layouts, *said.derived, *said.kept}
    made |= {
        own.name
        for name in said.canonical
        for own in target.canonical[name].sources
    }
    used |= {*extras(source).values(), *_random(source)}
    made |= {*extras(target).values(), *_random(target)}
    matched = match(source, target, used, made)
    complete = not (matched.left or matched.right or matched.problems)
    if source.library is not None or given.state is not None:
        return matched
    if complete and not (given.is_native_names and target.library == "flax"):
        return matched
    native = _match_native(source, target, said)
    return matched if native is None else native


def _match_native(
    source: Side, target: Side, said: Compiled
) -> Matched | None:
    """Matches the target's own names, if the source has just these."""
    names = source.infos.keys() - set(said.ignored)
    wanted = target.infos.keys() - set(said.kept) - set(said.derived)
    random = _random(target)
    equal = names - random == wanted - random and all(
        source.infos[name].shape == target.infos[name].shape
        for name in names & wanted - random
    )
    if not equal or said.layouts or said.canonical:
        return None
    said.ignored += names & random
    for name in names & wanted - random:
        said.layouts[name] = Layout.of(name, source.infos[name].shape)
    return Matched({}, (), (), ())


def _random(side: Side) -> set[str]:
    return {
        name
        for name, info in side.infos.items()
        if info.role is Role.RANDOM_STATE
    }


def _random_state(
    source: Side, target: Side, said: Compiled
) -> dict[str, Layout]:
    """Returns the layouts of random state that both sides have."""
    taken = {*said.ignored, *said.kept, *said.layouts}
    return {
        name: layout
        for name, layout in source.canonical.items()
        if name in target.canonical
        and layout.shape == target.canonical[name].shape
        and layout.sources[0].name in _random(source)
        and target.canonical[name].sources[0].name in _random(target)
        and taken.isdisjoint(
            (layout.sources[0].name, target.canonical[name].sources[0].name)
        )
    }


def _leave_random_state(
    layouts: Mapping[str, Layout], said: Compiled, source: Side, target: Side
) -> None:
    """Leaves random state alone that only one side has."""
    used = {s.name for x in layouts.values() for s in x.sources}
    said.ignored += _random(source) - used
    said.kept += _random(target) - layouts.keys()


def norm_pairs(
    layouts: Mapping[str, Layout], source: Side, target: Side
) -> dict[str, str]:
    """Returns the source's batch norm of each of the target's."""
    known = {
        name: layout
        for name, layout in source.canonical.items()
        if name.endswith("running_var")
    }
    by_layout = {simplify(layout): name for name, layout in known.items()}
    by_array = {x.sources[0].name: name for name, x in known.items()}
    found = {}
    for prefix in norms(target):
        name = prefix + "running_var"
        whole = target.canonical[name]
        own = whole.sources[0].name
        if own not in layouts:
            continue
        # Of stacked layers, one array of the target or source has several.
        left = by_layout.get(simplify(whole.substitute(layouts)))
        if left is None and len(layouts[own].sources) == 1:
            left = by_array.get(layouts[own].sources[0].name)
        if left is not None:
            found[prefix] = left.removesuffix("running_var")
    return found


def _divide(
    layouts: dict[str, Layout], factors: Mapping[str, float], target: Side
) -> None:
    """Divides arrays of the target, by the name of a canonical array.

    Raises:
        ValueError: if the layers of a stack have different factors.
    """
    found: dict[str, set[float]] = {}
    for name, by in factors.items():
        found.setdefault(target.canonical[name].sources[0].name, set()).add(by)
    for own, values in found.items():
        if len(values) > 1:
            raise ValueError(
                f"batch norm statistics {own!r}: got the factors "
                f"{sorted(values)} for stacked layers, expected one. Pass "
                "batch_norm='resume', or port to a model without the stack."
            )
        if own in layouts:
            layouts[own] = layouts[own].then(Divide(values.pop()))


def _copy_counters(
    layouts: dict[str, Layout],
    pairs: Mapping[str, str],
    source: Side,
    target: Side,
    taken: set[str],
) -> None:
    """Copies the counters of batch norms of one dialect."""
    ours, theirs = extras(source), extras(target)
    canonical = {}
    for right, left in pairs.items():
        for word in (COUNTER, FIRST):
            own, other = theirs.get(right + word), ours.get(left + word)
            if own is None or other is None or own in taken:
                continue
            shape = source.infos[other].shape
            if shape or target.infos[own].shape:  # of stacked layers
                canonical[right + word] = source.canonical[left + word]
            else:
                layouts.setdefault(own, Layout.of(other, shape))
    for own, layout in from_canonical(canonical, target).items():
        layouts.setdefault(own, layout)


def _flatten(
    canonical: dict[str, Layout],
    path: str,
    sizes: tuple[int, ...],
    source: Side,
    target: Side,
) -> None:
    """Reorders the inputs of a layer that acts on a flattened image."""
    ends = [side.library in CHANNELS_LAST for side in (source, target)]
    if ends[0] == ends[1]:
        raise ValueError(
            f"flatten {path!r}: got two models of one axis order, expected "
            "one with channels first and one with channels last. Write a "
            "rule with reshape and transpose instead."
        )
    names = [
        name
        for name, layout in target.canonical.items()
        if layout.sources[0].name in expand(Pattern.parse(path), target)
        and len(layout.shape) > 1
    ]
    if not names or not all(name in canonical for name in names):
        raise ValueError(
            f"flatten {path!r}: got no weight that is matched by its name or "
            "its module, expected one of the target. Name the layer that "
            "follows the flatten, and leave its array out of the rules."
        )
    spatial, channels = tuple(sizes[:-1]), sizes[-1]
    rank = len(sizes) + 1
    if ends[1]:
        inner, axes = (channels, *spatial), (0, *range(2, rank), 1)
    else:
        inner, axes = (*sizes,), (0, rank - 1, *range(1, rank - 1))
    for name in names:
        outputs, inputs = canonical[name].shape
        try:
            canonical[name] = canonical[name].then(
                Reshape((outputs, *inner)),
                Transpose(axes),
                Reshape((outputs, inputs)),
            )
        except ValueError as error:
            raise ValueError(
                f"flatten {path!r}: got the sizes {sizes}, expected (height, "
                f"width, channels) of {inputs} elements. Pass the shape of "
                "the image that is flattened."
            ) from error


def _roles(
    layouts: Mapping[str, Layout], source: Side, target: Side
) -> list[str]:
    """Describes arrays that are trained on one side only."""
    one_sided: dict[str, list[str]] = {"left": [], "right": []}
    for name, layout in layouts.items():
        theirs = target.infos[name].role
        for found in layout.sources:
            ours = source.infos[found.name].role
            if ours is None or theirs is None or ours is theirs:
                continue
            if ours is Role.PARAMETER:
                one_sided["left"].append(found.name)
            elif theirs is Role.PARAMETER:
                one_sided["right"].append(name)
    return [
        f"trained on the {side} only: {', '.join(sorted(names))}"
        for side, names in one_sided.items()
        if names
    ]


def with_notes(plan: Plan, notes: Iterable[str]) -> Plan:
    """Returns the plan with more notes."""
    return dataclasses.replace(plan, notes=(*plan.notes, *notes))
