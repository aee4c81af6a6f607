"""The results of a benchmark: raw samples, ratios and tables.

Every figure that is printed is computed here from the samples.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import rich.text
from rich.console import RenderableType

from common.rendering.tables import (
    Column,
    Table,
    markdown_table,
    render_table,
)

MAX_RATIO = 1.1
"""The largest acceptable time of a trainer step, relative to the baseline."""

NOTES = (
    "In each round every contender runs once, in a shuffled order, and its "
    "ratio to the baseline is taken within the round. The tables show the "
    "median and the quartiles of these ratios. The times are separate "
    "medians, so their quotients differ slightly from the ratios.",
    "The models are deliberately tiny, so that dispatch dominates a step: "
    "the figures show what a call costs in Python and in the runtime. "
    "Asynchronous dispatch hides this cost in a step of many milliseconds, "
    "so the figures do not rank the libraries for large models.",
    "`first call` traces, compiles and runs once. The contenders run in the "
    "order of the table and share JAX's caches, so the first one also does "
    "some work for the others.",
    "`within` means that the lower quartile is at most the acceptable "
    "ratio, so the measurement does not exclude it.",
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
        contender: the name of the contender.
        first_call: the seconds of the first call, which traces and compiles.
        seconds: the seconds per training step, one sample per round.
        steps: the number of training steps in one call.
    """

    contender: str
    first_call: float
    seconds: tuple[float, ...]
    steps: int = 1

    @property
    def median(self) -> float:
        """The median of the seconds per step."""
        return float(np.median(self.seconds))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """The compiled program of one contender's step.

    Attributes:
        contender: the name of the contender.
        flops: floating point operations, by XLA's cost analysis.
        bytes_accessed: bytes read and written, by the same analysis.
        instructions: the number of instructions of the optimized module.
        fusions: the number of fusions among the instructions.
        parameters: the number of arrays that are passed to a call.
    """

    contender: str
    flops: float
    bytes_accessed: float
    instructions: int
    fusions: int
    parameters: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Race:
    """Contenders that did the same work in turns.

    Attributes:
        title: the name of the work.
        timings: the samples of each contender, equally many.
        baselines: the contenders among which the one with the lowest median
            is the baseline.
        judged: the contenders that should not exceed `MAX_RATIO`.
        programs: the compiled programs that were analyzed.
        notes: remarks for the reader of the table.
    """

    title: str
    timings: tuple[Timing, ...]
    baselines: tuple[str, ...]
    judged: tuple[str, ...]
    programs: tuple[Program, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def baseline(self) -> Timing:
        """The fastest baseline."""
        baselines = [t for t in self.timings if t.contender in self.baselines]
        return min(baselines, key=lambda timing: timing.median)

    def ratio(self, timing: Timing) -> Ratio:
        """Returns the ratio of a contender to the baseline over the rounds."""
        return ratio(timing.seconds, self.baseline.seconds)

    def verdict(self, timing: Timing) -> str:
        """Returns `"within"` or `"over"`, or `""` if it is not judged."""
        if timing.contender not in self.judged:
            return ""
        return "within" if self.ratio(timing).low <= MAX_RATIO else "over"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """The environment that something was measured in.

    Attributes:
        versions: the versions of Python and the libraries.
        device: the device that JAX used.
        cpu_count: the number of cores that the process could use.
        date: the date and time in UTC.
        settings: the settings of the measurement.
        command: the command that reproduces the run.
    """

    versions: Mapping[str, str]
    device: str
    cpu_count: int
    date: str
    settings: Mapping[str, Any]
    command: str

    def to_json(self) -> dict[str, Any]:
        """Returns everything, including the raw samples, as JSON values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark(Measured):
    """All races of one run.

    Attributes:
        races: the races.
    """

    races: tuple[Race, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Benchmark":
        """Returns the benchmark that `to_json` was called on."""
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


def ratio(seconds: Sequence[float], baseline: Sequence[float]) -> Ratio:
    """Returns the median and quartiles of the ratios of each round.

    Raises:
        ValueError: if the numbers of samples differ.
    """
    if len(seconds) != len(baseline):
        raise ValueError(
            f"samples: got {len(seconds)}, expected {len(baseline)} like the "
            "baseline. Compare contenders of one race."
        )
    ratios = np.asarray(seconds) / np.asarray(baseline)
    low, median, high = np.percentile(ratios, [25, 50, 75]).tolist()
    return Ratio(median, low, high)


# --- tables -----------------------------------------------------------------


def tables(benchmark: Benchmark) -> list[Table]:
    """Returns the tables of all races."""
    found = [_race(race) for race in benchmark.races]
    return found + [_programs(r) for r in benchmark.races if r.programs]


def _race(race: Race) -> Table:
    return Table(
        race.title,
        _columns(
            "contender",
            "first call",
            "per step",
            "ratio",
            "quartiles",
            f"<= {MAX_RATIO:.2f}",
        ),
        [
            (
                timing.contender,
                seconds(timing.first_call),
                seconds(timing.median),
                *_ratio(race, timing),
                rich.text.Text(
                    race.verdict(timing), _STYLES[race.verdict(timing)]
                ),
            )
            for timing in race.timings
        ],
        race.notes,
    )


def _ratio(race: Race, timing: Timing) -> tuple[str, str]:
    if timing == race.baseline:
        return "1", "baseline"
    median, low, high = race.ratio(timing)
    return f"{median:.2f}", f"{low:.2f} to {high:.2f}"


def _programs(race: Race) -> Table:
    baseline = next(p for p in race.programs if p.contender in race.baselines)

    def relative(value: float | int, base: float | int) -> str:
        shown = f"{value / 1000:,.0f}k" if value >= 1e5 else f"{value:,.0f}"
        return f"{shown} ({value / base:.2f})" if base else shown

    return Table(
        f"Compiled program: {race.title}",
        _columns("contender", "flops", "bytes", "ops", "fusions", "arrays"),
        [
            (
                p.contender,
                relative(p.flops, baseline.flops),
                relative(p.bytes_accessed, baseline.bytes_accessed),
                relative(p.instructions, baseline.instructions),
                relative(p.fusions, baseline.fusions),
                str(p.parameters),
            )
            for p in race.programs
        ],
        (
            "The program of one step. `ops` counts the instructions of the "
            "optimized module, `arrays` the arrays that are passed to a call. "
            "The numbers in parentheses are relative to the baseline.",
        ),
    )


def seconds(value: float) -> str:
    """Formats a duration with three digits and a unit."""
    for unit, scale in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if value * scale >= 1 or unit == "us":
            break
    value *= scale
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} {unit}"


def about(measured: Measured) -> str:
    """Describes the environment of a benchmark."""
    versions = ", ".join(f"{k} {v}" for k, v in measured.versions.items())
    load = measured.settings.get("load_after")
    busy = "" if load is None else f" (load average {load:.1f} at the end)"
    return (
        f"{measured.device}, {measured.cpu_count} CPU cores{busy}, "
        f"{versions}; "
        f"{measured.date}; `{measured.command}`."
    )


def render(benchmark: Benchmark) -> list[RenderableType]:
    """Returns tables and notes for `rich.console.Console.print`."""
    renderables: list[RenderableType] = []
    for table in tables(benchmark):
        renderables += [render_table(table), ""]
    notes = [*NOTES, about(benchmark)]
    return renderables + [rich.text.Text(f"- {note}") for note in notes]


def markdown(benchmark: Benchmark) -> str:
    """Returns the same tables and notes for a page of the docs."""
    notes = [f"- {note}\n" for note in (*NOTES, about(benchmark))]
    return "".join([*map(markdown_table, tables(benchmark)), *notes])


def _columns(first: str, *numbers: str) -> list[Column]:
    return [Column(first), *(Column(title, "right") for title in numbers)]


_STYLES = {"": "", "within": "green", "over": "bold red"}
