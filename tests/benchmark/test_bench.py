"""The benchmark: verification, statistics and tables.

No test asserts a time.
"""

import dataclasses
import importlib
import io
import json

import numpy as np
import pytest
import rich.console

from common.benchmark import report as bench_report
from common.benchmark import suite as bench
from common.benchmark.measure import (
    Contender,
    UnverifiedContenderError,
    verify,
)
from common.benchmark.report import Benchmark, Program, Race, Timing
from tests.conftest import one_in

BACKENDS = tuple(bench.LIBRARIES)


@pytest.fixture(scope="session")
def quick() -> Benchmark:
    """The smallest run that measures every kind of contender."""
    return bench.run(
        depths=(1,), fits={"stateful_mlp": 1}, rounds=2, progress=False
    )


def make_race(**changes) -> Race:
    timings = (
        Timing(contender="a", first_call=1.0, seconds=(1.0, 2.0, 4.0, 8.0)),
        Timing(contender="b", first_call=2.0, seconds=(2.0, 4.0, 4.0, 4.0)),
        Timing(contender="c", first_call=3.0, seconds=(2.0, 4.0, 8.0, 16.0)),
    )
    programs = (
        Program(
            contender="a", flops=10.0, bytes_accessed=20.0, instructions=5,
            fusions=2, parameters=3,
        ),
        Program(
            contender="c", flops=20.0, bytes_accessed=20.0, instructions=5,
            fusions=0, parameters=4,
        ),
    )  # fmt: skip
    race = Race(
        title="One step",
        timings=timings,
        baselines=("a",),
        judged=("b", "c"),
        programs=programs,
        notes=("A note.",),
    )
    return dataclasses.replace(race, **changes)


def make_benchmark(*races: Race) -> Benchmark:
    return Benchmark(
        races=races,
        versions={"jax": "0.10.2"},
        device="cpu (cpu)",
        cpu_count=2,
        date="2026-01-01T00:00:00+00:00",
        settings={"rounds": 4, "depths": [2], "compile_cache": None},
        command="python -m common bench",
    )


# --- only verified contenders are timed ----------------------------------


@pytest.mark.parametrize("backend", one_in(2, BACKENDS))
def test_sabotaged_contender_is_not_timed(backend, monkeypatch):
    module = importlib.import_module(f"impl_{backend}.benchmark")
    name, make = next(iter(module.CONTENDERS.items()))

    def sabotaged(native, optimizer):
        step = make(native, optimizer)
        # The model learns from half the targets.
        return lambda xs, ys: step(xs, ys / 2)

    def refuse(*args):
        raise AssertionError(f"timed {args}")

    monkeypatch.setattr(module, "CONTENDERS", {name: sabotaged})
    monkeypatch.setattr(bench, "measure", refuse)
    with pytest.raises(
        UnverifiedContenderError,
        match=rf"{name}, loss of step 1: got .*, expected .* like plain JAX",
    ):
        bench.run(depths=(1,), fits={}, rounds=1, progress=False)


def test_fault_of_a_later_step_is_found():
    steps = {"baseline": 0, "late": 0}

    def make(name, fault):
        def call():
            steps[name] += 1
            return np.float32(1 + fault * (steps[name] == 3))

        return Contender(name, call)

    good, late = make("baseline", 0), make("late", 1e-2)
    with pytest.raises(UnverifiedContenderError, match="step 3"):
        verify([good, late], "baseline", 4)


def test_a_loss_that_is_not_a_number_is_found():
    contenders = [
        Contender("baseline", lambda: np.float32(1)),
        Contender("nan", lambda: np.float32("nan")),
    ]
    with pytest.raises(UnverifiedContenderError, match="got nan"):
        verify(contenders, "baseline", 1)


def test_a_fit_that_loses_steps_is_found():
    contenders = [
        Contender("baseline", lambda: np.ones(4, "float32"), 4),
        Contender("short", lambda: np.ones(3, "float32"), 4),
    ]
    with pytest.raises(UnverifiedContenderError, match="3 losses"):
        verify(contenders, "baseline", 1)


# --- figures ----------------------------------------------------------------


def test_ratio_pairs_the_rounds():
    race = make_race()
    _, b, c = race.timings
    assert race.ratio(c) == (2, 2, 2)
    # 2/1, 4/2, 4/4, 4/8: sorted 0.5, 1, 2, 2.
    assert race.ratio(b) == (1.5, 0.875, 2)
    assert b.median == 4


def test_ratio_refuses_samples_of_other_rounds():
    with pytest.raises(ValueError, match="samples: got 1, expected 2 like"):
        bench_report.ratio((1.0,), (1.0, 2.0))


def test_verdict_excludes_by_the_lower_quartile():
    race = make_race()
    assert [race.verdict(t) for t in race.timings] == ["", "within", "over"]
    assert race.verdict(race.timings[0]) == ""


def test_floor_is_the_faster_one():
    race = make_race(baselines=("a", "b"))
    assert race.baseline.contender == "a"
    slow = dataclasses.replace(race.timings[0], seconds=(9.0,) * 4)
    race = make_race(baselines=("a", "b"), timings=(slow, *race.timings[1:]))
    assert race.baseline.contender == "b"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0, "2.00 s"),
        (0.0123, "12.3 ms"),
        (0.000456, "456 us"),
        (1e-8, "0.01 us"),
    ],
)
def test_seconds(value, text):
    assert bench_report.seconds(value) == text


# --- JSON and tables --------------------------------------------------------


def test_json_round_trip():
    benchmark = make_benchmark(make_race(), make_race(programs=()))
    text = json.dumps(benchmark.to_json())
    assert Benchmark.from_json(json.loads(text)) == benchmark


def widest(benchmark: Benchmark) -> str:
    console = rich.console.Console(
        width=80, file=io.StringIO(), record=True, force_terminal=False
    )
    for renderable in bench_report.render(benchmark):
        console.print(renderable)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_rendering_fits_80_columns_and_cuts_nothing():
    slow = Timing(
        contender="plain JAX, Python loop",
        first_call=123.4,
        seconds=(123.4, 234.5, 345.6, 456.7),
        steps=512,
    )
    big = Program(
        contender="Trainer over Equinox", flops=2904567.0,
        bytes_accessed=2904567.0, instructions=43000, fusions=2700,
        parameters=1206,
    )  # fmt: skip
    race = make_race()
    race = make_race(
        timings=(*race.timings, slow), programs=(*race.programs, big)
    )
    text = widest(make_benchmark(race))
    assert "…" not in text
    for words in ("One step", "A note.", "within", "over", "dispatch"):
        assert words in text


def test_markdown_has_every_figure_of_the_tables():
    benchmark = make_benchmark(make_race())
    text = bench_report.markdown(benchmark)
    for table in bench_report.tables(benchmark):
        for row in table.rows:
            assert f"| {' | '.join(map(str, row))} |" in text
    for note in bench_report.NOTES:
        assert note in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} <= {6, 7}


# --- end to end -------------------------------------------------------------


@pytest.mark.exhaustive
def test_quick_run_times_every_contender(quick):
    step, fit = quick.races
    names = [timing.contender for timing in step.timings]
    assert names[0] == bench.BASELINE
    for backend in BACKENDS:
        module = importlib.import_module(f"impl_{backend}.benchmark")
        assert module.CONTENDERS.keys() <= set(names)
    assert set(step.judged) < set(names)
    assert {t.contender for t in fit.timings} >= {bench.LOOP, bench.SCAN}
    for race in quick.races:
        for timing in race.timings:
            assert len(timing.seconds) == 2
            assert min(timing.seconds) > 0 < timing.first_call


@pytest.mark.exhaustive
def test_quick_run_reads_the_compiled_programs(quick):
    programs = quick.races[0].programs
    assert {p.contender for p in programs} == {
        bench.BASELINE,
        *quick.races[0].judged,
    }
    for program in programs:
        assert program.flops > 0 and program.bytes_accessed > 0
        assert program.instructions > program.fusions > 0
        assert program.parameters > 2  # more than the batch


@pytest.mark.exhaustive
def test_quick_run_keeps_what_it_ran_on(quick):
    values = json.loads(json.dumps(quick.to_json()))
    assert Benchmark.from_json(values) == quick
    assert values["command"] and values["date"] and values["cpu_count"]
    assert {"jax", "equinox", "flax"} <= values["versions"].keys()
    assert len(values["races"][0]["timings"][0]["seconds"]) == 2
    widest(quick)
