"""A checked, printable mapping from the arrays of one model to another's."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from common.layouts import Layout, invert, simplify
from common.porting.arrays import Infos
from common.porting.compilation import compile_rules
from common.porting.copies import copies_of, require_copies
from common.porting.folding import fold
from common.porting.grammar import parse_rules
from common.porting.sides import Side
from common.porting.table import table
from common.porting.writing import write_rules

_SEPARATOR = ";\n  "


@dataclasses.dataclass(frozen=True)
class Plan:
    """How each array of a target is made from the arrays of a source.

    A plan is checked whole when it is made: every array of both sides is
    mapped, derived, ignored or kept, every shape fits, and no element of a
    source array is lost unless the array is ignored. `print(plan)` shows it
    as a table, and `plan.rules` as text.

    Attributes:
        layouts: for each target name, the layout over source names.
        source: the arrays of the source.
        target: the arrays of the target.
        ignored: names of source arrays that go nowhere.
        kept: names of target arrays that are left alone.
        notes: what else is to be known, such as settings that differ.
        derived: the values of target arrays that have no source: a number,
            or nested lists of numbers.
        copies: the source arrays that must hold the same values as others,
            because the target ties them, with the layout that makes each of
            the others.

    Raises:
        ValueError: naming every array with which something is wrong.
    """

    layouts: Mapping[str, Layout]
    source: Infos
    target: Infos
    ignored: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    derived: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    copies: Mapping[str, Layout] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        layouts = {n: simplify(x) for n, x in self.layouts.items()}
        order = {name: i for i, name in enumerate(self.source)}

        def first(name):
            names = [source.name for source in layouts[name].sources]
            return min(order.get(source, -1) for source in names)

        layouts = {name: layouts[name] for name in sorted(layouts, key=first)}
        object.__setattr__(self, "layouts", layouts)
        for field in ("ignored", "kept"):
            value = tuple(sorted(set(getattr(self, field))))
            object.__setattr__(self, field, value)
        problems = [*_wrong_names(self), *_wrong_shapes(self)]
        if not problems:
            problems = _lost_elements(self)
        if problems:
            raise ValueError(
                fold(f"plan: {_SEPARATOR.join(problems)}.")
                + " Add or correct the rules of these arrays, or list them "
                "in `ignore` or `keep`."
            )

    @classmethod
    def parse(cls, rules: Any, source: Infos, target: Infos) -> "Plan":
        """Reads a plan from its rules, which name arrays.

        Args:
            rules: text, or a dict, as in `Plan.rules`.
            source: the arrays of the source.
            target: the arrays of the target.

        Returns:
            The plan, which has been checked whole.

        Raises:
            ValueError: naming a rule that cannot be read or does not fit, or
                the arrays that no rule names.
        """
        found = compile_rules(
            parse_rules(rules),
            Side.plain("source", source),
            Side.plain("target", target),
        )
        return cls(
            found.layouts,
            source,
            target,
            tuple(found.ignored),
            tuple(found.kept),
            derived=found.derived,
            copies=found.copies,
        )

    @functools.cached_property
    def rules(self) -> str:
        """The plan as text, which `Plan.parse` and `port` read."""
        return write_rules(self)

    def apply(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Makes the target's arrays.

        Args:
            arrays: the source's arrays by name. They may be tracers.

        Returns:
            All target arrays but those that are kept. Their dtype is that of
            their source.

        Raises:
            ValueError: naming arrays that are missing, or of another shape,
                or of other values than the arrays that they are copies of.
        """
        needed = {s.name for x in self.layouts.values() for s in x.sources}
        missing = sorted(needed - arrays.keys())
        if missing:
            raise ValueError(
                fold(f"arrays: got nothing for {missing}")
                + ", expected all sources of the plan. Pass the arrays of "
                "the model that it was made for."
            )
        require_copies(self.copies, arrays)
        made = {n: layout.apply(arrays) for n, layout in self.layouts.items()}
        for name, value in self.derived.items():
            info = self.target[name]
            made[name] = np.broadcast_to(
                np.asarray(value, info.dtype), info.shape
            )
        return made

    def inverse(self) -> "Plan":
        """Returns the plan that leads back.

        What is ignored here is kept there, and the other way around. Arrays
        that are derived here are ignored there. Of several arrays that are
        made of one, the others are copies there.

        Raises:
            ValueError: if only a piece of a source array is used.
        """
        made = {
            name: layout
            for name, layout in invert(self.layouts).items()
            if name not in self.ignored
        }
        tied = {n: x.substitute(made) for n, x in self.copies.items()}
        return Plan(
            made | tied,
            self.target,
            self.source,
            (*self.kept, *self.derived),
            self.ignored,
            self.notes,
            copies=copies_of(made, self.layouts),
        )

    def __str__(self) -> str:
        return table(self)


def _wrong_names(plan: Plan) -> list[str]:
    used = {s.name for x in plan.layouts.values() for s in x.sources}
    made = [*plan.layouts, *plan.derived, *plan.kept]
    sides = (
        ("source", plan.source, [*used, *plan.ignored, *plan.copies]),
        ("target", plan.target, made),
    )
    problems = []
    for what, infos, names in sides:
        problems += [
            f"{what} {name!r}: got a name that the {what} does not have, "
            "expected one of its arrays"
            for name in sorted(set(names) - infos.keys())
        ]
        problems += [
            f"{what} {name!r} {infos[name].shape}: got no rule, expected one"
            for name in sorted(infos.keys() - set(names))
        ]
    problems += [
        f"target {name!r}: got several rules, expected one"
        for name in sorted({name for name in made if made.count(name) > 1})
    ]
    return problems


def _wrong_shapes(plan: Plan) -> list[str]:
    problems = []
    for name, layout in plan.layouts.items():
        info = plan.target.get(name)
        if info is not None and info.shape != layout.shape:
            problems.append(
                f"target {name!r}: got the shape {layout.shape}, expected "
                f"{info.shape}"
            )
        for source in layout.sources:
            info = plan.source.get(source.name)
            if info is not None and info.shape != source.shape:
                problems.append(
                    f"source {source.name!r}: got the shape {info.shape}, "
                    f"expected {source.shape}"
                )
    for name, value in plan.derived.items():
        if name not in plan.target:
            continue
        shape = plan.target[name].shape
        try:
            np.broadcast_to(np.asarray(value), shape)
        except ValueError:
            problems.append(
                f"target {name!r}: got a value of the shape "
                f"{np.shape(value)}, expected {shape}"
            )
    return problems


def _lost_elements(plan: Plan) -> list[str]:
    """Names the sources of which some elements go nowhere."""
    lost = []
    for layouts in _components(plan.layouts):
        sources = {s.name for x in layouts.values() for s in x.sources}
        if not sources.isdisjoint(plan.ignored):
            continue
        try:
            invert(layouts)
        except ValueError as error:
            lost.append(str(error).rstrip(".").replace(". ", ", "))
    return lost


def _components(layouts: Mapping[str, Layout]) -> list[dict[str, Layout]]:
    """Groups the layouts that share sources."""
    found: list[tuple[set[str], dict[str, Layout]]] = []
    for name, layout in layouts.items():
        sources, group = {s.name for s in layout.sources}, {name: layout}
        apart = []
        for others, members in found:
            if sources.isdisjoint(others):
                apart.append((others, members))
            else:
                sources |= others
                group = members | group
        found = [*apart, (sources, group)]
    return [group for _, group in found]
