"""The results of `bench --devices`: raw samples, ratios and tables.

Every figure that is printed is computed here from the samples.
"""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.text
from rich.console import RenderableType

from common.benchmark.collectives import Collective, moved_bytes
from common.benchmark.report import Measured, Ratio, about, ratio, seconds
from common.rendering.tables import (
    Column,
    Table,
    markdown_table,
    render_table,
)

BASELINE = "plain JAX"
REPLICATED = "replicated"
MAX_RATIO = 1.05
"""The largest acceptable time and memory of a trainer step, relative to
hand-written JAX."""

NOTES = (
    "A number in parentheses is relative to `plain JAX`: hand-written JAX "
    "with the same shardings, in the same process.",
    "`first call` traces, compiles and runs once, with all caches empty. It "
    "is the median of a few, which vary by several percent.",
    "`step` is the median time of a step. Its ratio is taken within rounds, "
    "in which every contender runs once, in a shuffled order; `quartiles` are "
    "those of this ratio.",
    "`memory` is what the compiled program needs on each device: its "
    "arguments, temporaries and results, less the results that are written "
    "over donated arguments, as XLA states them.",
    "`moved` is what each device sends in a step, read from the compiled "
    "program, if every operation uses a ring: 2(n-1)/n of the array in an "
    "all-reduce of n devices, (n-1)/n of the whole array in an all-gather, a "
    "reduce-scatter or an all-to-all, and all of it in a permutation. "
    "`operations` counts these operations.",
    f"`target` is at most {MAX_RATIO:.2f} times the time and the memory. The "
    "column names what exceeds it: the time, if the lower quartile of its "
    "ratios does, or the memory.",
    "The batch is the same on any number of devices. Virtual devices of a CPU "
    "share its cores, so their times do not tell what real devices would "
    "take; memory and bytes do not depend on it.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """The bytes that a compiled program needs on each device.

    Attributes:
        arguments: of the arrays that are passed.
        outputs: of the results.
        temporaries: of everything between.
        aliased: of the results that are written over donated arguments.
    """

    arguments: int
    outputs: int
    temporaries: int
    aliased: int

    @property
    def peak(self) -> int:
        """The bytes that must be free to run the program."""
        return self.arguments + self.outputs + self.temporaries - self.aliased


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What a training step of one contender costs.

    Attributes:
        contender: `BASELINE`, or the library whose trainer takes the step.
        variant: the hyper-parameters, as text.
        first_calls: the seconds of each first call.
        seconds: the seconds per training step, one sample per round.
        memory: that of the compiled program, or `None` if the platform does
            not tell.
        collectives: the communication of a step.
    """

    contender: str
    variant: str
    first_calls: tuple[float, ...]
    seconds: tuple[float, ...]
    memory: Memory | None
    collectives: tuple[Collective, ...]

    @property
    def first_call(self) -> float:
        """The median of the seconds of the first calls."""
        return float(np.median(self.first_calls))

    @property
    def step(self) -> float:
        """The median of the seconds per step."""
        return float(np.median(self.seconds))

    @property
    def moved(self) -> float:
        """The bytes that each device sends in a step."""
        return moved_bytes(self.collectives)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """All contenders on one number of devices, with one layout.

    Attributes:
        devices: the number of devices.
        shard: `"replicated"` or `"fsdp"`.
        costs: those of each contender and variant.
    """

    devices: int
    shard: str
    costs: tuple[Cost, ...]

    @property
    def title(self) -> str:
        """The devices and the layout."""
        plural = "s" * (self.devices > 1)
        return f"{self.devices} device{plural}, {self.shard}"

    def baseline(self, cost: Cost) -> Cost:
        """Returns hand-written JAX with the same hyper-parameters."""
        return next(
            found
            for found in self.costs
            if (found.contender, found.variant) == (BASELINE, cost.variant)
        )

    def verdict(self, cost: Cost) -> str:
        """Returns what is too large: `"time"`, `"memory"` or `"both"`.

        `"within"` stands for neither, and `""` for the baseline.
        """
        base = self.baseline(cost)
        if cost is base:
            return ""
        slow = ratio(cost.seconds, base.seconds).low > MAX_RATIO
        large = (
            cost.memory is not None
            and base.memory is not None
            and cost.memory.peak > MAX_RATIO * base.memory.peak
        )
        return {
            (False, False): "within",
            (True, False): "time",
            (False, True): "memory",
            (True, True): "both",
        }[slow, large]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Case":
        """Returns the case that `dataclasses.asdict` was called on."""
        costs = tuple(
            Cost(
                **cost
                | {
                    "first_calls": tuple(cost["first_calls"]),
                    "seconds": tuple(cost["seconds"]),
                    "memory": cost["memory"] and Memory(**cost["memory"]),
                    "collectives": tuple(
                        Collective(**x) for x in cost["collectives"]
                    ),
                }
            )
            for cost in values["costs"]
        )
        return cls(**{**values, "costs": costs})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling(Measured):
    """The costs of a model on every number of devices.

    Attributes:
        model: the name of the spec.
        cases: one for each number of devices and layout.
    """

    model: str
    cases: tuple[Case, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Scaling":
        """Returns the object that `to_json` was called on."""
        cases = tuple(map(Case.from_json, values["cases"]))
        return cls(**{**values, "cases": cases})

    @property
    def variants(self) -> tuple[str, ...]:
        """The hyper-parameters that were compared, as text."""
        costs = self.cases[0].costs
        return tuple(dict.fromkeys(cost.variant for cost in costs))


# --- tables -----------------------------------------------------------------


def tables(scaling: Scaling) -> list[Table]:
    """Returns the tables of a run, two for each case and variant."""
    found = []
    for case in scaling.cases:
        for variant in scaling.variants:
            costs = [c for c in case.costs if c.variant == variant]
            shown = f"{case.title}: {scaling.model} {variant}".strip()
            found.append(_costs(shown, case, costs))
            found.append(_parts(case, costs))
    if len(scaling.variants) > 1:
        found += _variants(scaling)
    return found


def _costs(title: str, case: Case, costs: Sequence[Cost]) -> Table:
    rows = []
    for cost in costs:
        base, verdict = case.baseline(cost), case.verdict(cost)
        cells = (
            (seconds(cost.first_call), cost.first_call / base.first_call),
            (seconds(cost.step), ratio(cost.seconds, base.seconds).median),
            (bytes_(_peak(cost)), _times(_peak(cost), _peak(base))),
            (bytes_(cost.moved), _times(cost.moved, base.moved)),
        )
        rows.append(
            (
                cost.contender,
                *(
                    shown if cost is base else f"{shown} ({times:.2f})"
                    for shown, times in cells
                ),
                rich.text.Text(verdict, _STYLES.get(verdict, "bold red")),
            )
        )
    return Table(
        title,
        _columns(
            "contender",
            "first call",
            "step",
            "memory",
            "moved",
            "target",
        ),
        rows,
    )


def _parts(case: Case, costs: Sequence[Cost]) -> Table:
    rows = []
    for cost in costs:
        base, memory = case.baseline(cost), cost.memory
        found = ratio(cost.seconds, base.seconds)
        rows.append(
            (
                cost.contender,
                "" if cost is base else _quartiles(found),
                "-" if memory is None else bytes_(memory.arguments),
                "-" if memory is None else bytes_(memory.temporaries),
                operations(cost.collectives),
            )
        )
    return Table(
        "",
        [
            Column("contender"),
            Column("quartiles", "right"),
            Column("arguments", "right"),
            Column("temporaries", "right"),
            Column("operations"),
        ],
        rows,
    )


def _variants(scaling: Scaling) -> list[Table]:
    """Compares the hyper-parameters of each contender with the first."""
    first, *others = scaling.variants
    tables = []
    before = first or "the defaults"
    for case in scaling.cases:
        found = {(c.contender, c.variant): c for c in case.costs}
        contenders = dict.fromkeys(c.contender for c in case.costs)
        for variant in others:
            rows = []
            for contender in contenders:
                cost, base = found[contender, variant], found[contender, first]
                step = ratio(cost.seconds, base.seconds)
                rows.append(
                    (
                        contender,
                        f"{cost.first_call / base.first_call:.2f}",
                        f"{step.median:.2f}",
                        _quartiles(step),
                        f"{_times(_peak(cost), _peak(base)):.2f}",
                        f"{_times(cost.moved, base.moved):.2f}",
                    )
                )
            tables.append(
                Table(
                    f"{case.title}: {variant} relative to {before}",
                    _columns(
                        "contender",
                        "first call",
                        "step",
                        "quartiles",
                        "memory",
                        "moved",
                    ),
                    rows,
                )
            )
    return tables


def render(scaling: Scaling) -> list[RenderableType]:
    """Returns tables and notes for `rich.console.Console.print`."""
    renderables: list[RenderableType] = []
    for table in tables(scaling):
        renderables += [render_table(table), ""]
    notes = [*NOTES, about(scaling)]
    return renderables + [rich.text.Text(f"- {note}") for note in notes]


def markdown(scaling: Scaling) -> str:
    """Returns the same tables and notes for a page of the docs."""
    notes = [f"- {note}\n" for note in (*NOTES, about(scaling))]
    return "".join([*map(markdown_table, tables(scaling)), *notes])


def operations(collectives: Sequence[Collective]) -> str:
    """Counts operations by kind, as in `3 all-gather, 9 all-reduce`."""
    counts = collections.Counter[str]()
    for collective in collectives:
        counts[collective.kind] += collective.calls
    return ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))


def bytes_(value: float) -> str:
    """Formats a number of bytes with three digits and a unit, or a dash."""
    if math.isnan(value):
        return "-"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            value /= scale
            digits = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:.{digits}f} {unit}"
    return f"{value:.0f} B"


def _peak(cost: Cost) -> float:
    return math.nan if cost.memory is None else cost.memory.peak


def _times(value: float, base: float) -> float:
    return value / base if base else 1.0 if value == base else math.inf


def _quartiles(found: Ratio) -> str:
    return f"{found.low:.2f} to {found.high:.2f}"


def _columns(first: str, *numbers: str) -> list[Column]:
    return [Column(first), *(Column(title, "right") for title in numbers)]


_STYLES = {"": "", "within": "green"}
