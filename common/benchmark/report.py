"""What a benchmark found: raw samples, the ratios made of them, and tables.

Every figure that is printed is computed here from the samples.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import rich.box
import rich.table
import rich.text
from rich.console import RenderableType

WANTED = 1.1
"""The most that a trainer may cost, as a ratio to the floor."""

NOTES = (
    "A ratio is taken within one round, in which every contender runs once "
    "in a shuffled order; shown are its median and its quartiles over the "
    "rounds. The times are medians of their own, so they do not divide into "
    "the ratios.",
    "The models are tiny on purpose. Such a step is bound by dispatch: the "
    "figures say what a call costs in Python and in the runtime. In a step "
    "of many milliseconds the same cost is hidden by asynchronous dispatch, "
    "so they are no ranking of the libraries for large models.",
    "`first call` traces, compiles and runs once. Contenders run in the "
    "order shown and share JAX's caches, so the first one pays a little "
    "for all.",
    "`within` means that the lower quartile is at most the wanted ratio: "
    "the interval does not exclude it.",
)


class Ratio(NamedTuple):
    """A median with its quartiles."""

    median: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """The samples of one contender.

    Attributes:
        contender: its name.
        first_call: seconds of the first call: trace, compile and run.
        seconds: seconds a training step, one sample a round.
        steps: training steps in one call.
    """

    contender: str
    first_call: float
    seconds: tuple[float, ...]
    steps: int = 1

    @property
    def median(self) -> float:
        """Median seconds a step."""
        return float(np.median(self.seconds))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """What the compiler made of one contender's step.

    Attributes:
        contender: its name.
        flops: floating point operations, by XLA's cost analysis.
        bytes_accessed: bytes read and written, by the same analysis.
        instructions: of the optimized module, in all its computations.
        fusions: among them, in all computations.
        parameters: arrays that go into a call.
    """

    contender: str
    flops: float
    bytes_accessed: float
    instructions: int
    fusions: int
    parameters: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Race:
    """Contenders that did the same work, interleaved.

    Attributes:
        title: the work.
        timings: one a contender, as many samples in each.
        floors: the contenders to be measured by; the one with the lowest
            median is the floor.
        held: the contenders that the wanted ratio is asked of.
        programs: compiled programs, where they were read.
        notes: what a reader of this race must know.
    """

    title: str
    timings: tuple[Timing, ...]
    floors: tuple[str, ...]
    held: tuple[str, ...]
    programs: tuple[Program, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def floor(self) -> Timing:
        """The fastest of the floors."""
        floors = [t for t in self.timings if t.contender in self.floors]
        return min(floors, key=lambda timing: timing.median)

    def ratio(self, timing: Timing) -> Ratio:
        """Compares a contender with the floor, round by round."""
        return ratio(timing.seconds, self.floor.seconds)

    def verdict(self, timing: Timing) -> str:
        """Says whether a contender costs what it may."""
        if timing.contender not in self.held:
            return ""
        return "within" if self.ratio(timing).low <= WANTED else "over"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """All races of one run, and what they ran on.

    Attributes:
        races: what was measured.
        versions: of Python and the libraries.
        device: what JAX ran on.
        cpu_count: cores that this process may use.
        date: when, in UTC.
        settings: all that decides how it was measured.
        command: runs it again.
    """

    races: tuple[Race, ...]
    versions: Mapping[str, str]
    device: str
    cpu_count: int
    date: str
    settings: Mapping[str, Any]
    command: str

    def to_json(self) -> dict[str, Any]:
        """Returns everything, raw samples included, as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Benchmark":
        """Inverts `to_json`, also after a trip through text."""
        races = tuple(
            Race(
                **_tuples(race)
                | {
                    "timings": tuple(
                        Timing(**_tuples(x)) for x in race["timings"]
                    ),
                    "programs": tuple(Program(**x) for x in race["programs"]),
                }
            )
            for race in values["races"]
        )
        return cls(**{**values, "races": races})


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: tuple(x) if isinstance(x, list) else x for k, x in values.items()
    }


def ratio(seconds: Sequence[float], floor: Sequence[float]) -> Ratio:
    """Divides the samples of the same rounds; returns median and quartiles.

    Raises:
        ValueError: if the two do not have as many samples.
    """
    if len(seconds) != len(floor):
        raise ValueError(
            f"samples: got {len(seconds)}, expected {len(floor)} like the "
            "floor. Compare contenders of one race."
        )
    ratios = np.asarray(seconds) / np.asarray(floor)
    low, median, high = np.percentile(ratios, [25, 50, 75]).tolist()
    return Ratio(median, low, high)


# --- tables -----------------------------------------------------------------


class Table(NamedTuple):
    """A table of text, before it is Rich's or Markdown's."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...]


def tables(benchmark: Benchmark) -> list[Table]:
    """Returns the tables of all races."""
    found = [_race(race) for race in benchmark.races]
    return found + [_programs(r) for r in benchmark.races if r.programs]


def _race(race: Race) -> Table:
    return Table(
        race.title,
        (
            "contender",
            "first call",
            "a step",
            "ratio",
            "quartiles",
            f"<= {WANTED:.2f}",
        ),
        [
            (
                timing.contender,
                seconds(timing.first_call),
                seconds(timing.median),
                *_ratio(race, timing),
                race.verdict(timing),
            )
            for timing in race.timings
        ],
        race.notes,
    )


def _ratio(race: Race, timing: Timing) -> tuple[str, str]:
    if timing == race.floor:
        return "1", "the floor"
    median, low, high = race.ratio(timing)
    return f"{median:.2f}", f"{low:.2f} to {high:.2f}"


def _programs(race: Race) -> Table:
    floor = next(p for p in race.programs if p.contender in race.floors)

    def beside(value: float | int, of: float | int) -> str:
        shown = f"{value / 1000:,.0f}k" if value >= 1e5 else f"{value:,.0f}"
        return f"{shown} ({value / of:.2f})" if of else shown

    return Table(
        f"Compiled program: {race.title}",
        ("contender", "flops", "bytes", "ops", "fusions", "arrays"),
        [
            (
                p.contender,
                beside(p.flops, floor.flops),
                beside(p.bytes_accessed, floor.bytes_accessed),
                beside(p.instructions, floor.instructions),
                beside(p.fusions, floor.fusions),
                str(p.parameters),
            )
            for p in race.programs
        ],
        (
            "Of one step. `ops`: instructions of the optimized module; "
            "`arrays`: what goes into a call. In brackets: beside the floor's "
            "program.",
        ),
    )


def seconds(value: float) -> str:
    """Writes a duration in three digits and a unit."""
    for unit, scale in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if value * scale >= 1 or unit == "us":
            break
    value *= scale
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} {unit}"


def about(benchmark: Benchmark) -> str:
    """Says in a line or two what a benchmark ran on."""
    versions = ", ".join(f"{k} {v}" for k, v in benchmark.versions.items())
    load = benchmark.settings.get("load_after")
    busy = "" if load is None else f" (load average {load:.1f} at the end)"
    return (
        f"{benchmark.device}, {benchmark.cpu_count} CPU cores{busy}, "
        f"{versions}; "
        f"{benchmark.date}; `{benchmark.command}`."
    )


def render(benchmark: Benchmark) -> list[RenderableType]:
    """Returns what Rich prints: tables and the notes that go with them."""
    renderables: list[RenderableType] = []
    for table in tables(benchmark):
        grid = rich.table.Table(
            title=table.title,
            title_justify="left",
            box=rich.box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        for i, column in enumerate(table.columns):
            grid.add_column(column, justify="right" if i else "left")
        for row in table.rows:
            grid.add_row(*(rich.text.Text(x, _style(x)) for x in row))
        renderables += [grid, *map(rich.text.Text, table.notes), ""]
    notes = [*NOTES, about(benchmark)]
    return renderables + [rich.text.Text(f"- {note}") for note in notes]


def _style(text: str) -> str:
    return {"within": "green", "over": "bold red"}.get(text, "")


def markdown(benchmark: Benchmark) -> str:
    """Returns the same tables and notes for a page of the docs."""
    lines = []
    for table in tables(benchmark):
        align = [":--", *["--:"] * (len(table.columns) - 1)]
        lines += [f"**{table.title}**", ""]
        lines += [
            f"| {' | '.join(row)} |"
            for row in (table.columns, align, *table.rows)
        ]
        lines += ["", *table.notes, ""] if table.notes else [""]
    lines += [f"- {note}" for note in (*NOTES, about(benchmark))]
    return "\n".join(lines) + "\n"
