"""The table of the landing page, from two stored runs."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from tables import table

from common.benchmark import report as bench_report
from common.benchmark.report import Benchmark
from common.comparison.rows import ulps
from common.models import specs

DATA = pathlib.Path(__file__).parent / "data"
TRAINERS = ("Trainer over Equinox", "Trainer over Flax")
RACES = {
    "stateful_mlp": "fit of stateful_mlp",
    "digits_cnn": "fit of digits_cnn",
    "deep_mlp": "One step at 20 blocks",
}
"""The race of the benchmark that times a model."""


def pages() -> dict[str, str]:
    """Returns the generated files.

    Raises:
        ValueError: if the stored comparison does not cover every model.
    """
    stored = json.loads((DATA / "compare.json").read_text())
    timed = Benchmark.from_json(json.loads((DATA / "bench.json").read_text()))
    found = {report["spec"] for report in stored["reports"]}
    if found != set(specs()):
        raise ValueError(
            f"compare.json: got the models {sorted(found)}, expected "
            f"{sorted(specs())}. Run eqx-vs-nnx compare --json "
            "docs/data/compare.json."
        )
    rows = [_row(report, timed) for report in stored["reports"]]
    steps = {report["steps"] for report in stored["reports"]}
    columns = (
        "model",
        "dtype",
        "agree",
        f"largest error of a loss in {_one(steps)} steps",
        "step in Equinox",
        "step in Flax NNX",
    )
    return {"headline.md": table(columns, rows, text=3)}


def _one(values: set[int]) -> int:
    (value,) = values
    return value


def _row(report: Mapping[str, Any], timed: Benchmark) -> list[str]:
    (trajectory,) = [
        row
        for row in report["rows"]
        if row["quantity"] == "trajectory"
        and (row["left"], row["right"]) == ("equinox", "flax")
    ]
    error = float(trajectory["worst"]["error"])
    shown = f"{error:.1e} ({ulps(error, report['dtype']):.0f} ULP)"
    return [
        f"[{report['spec']}](models/{report['spec']}.md)",
        report["dtype"],
        "yes" if report["ok"] else "NO",
        shown,
        *_costs(report["spec"], timed),
    ]


def _costs(spec: str, timed: Benchmark) -> list[str]:
    """Returns the times of a step relative to plain JAX, in each library."""
    (race,) = [r for r in timed.races if r.title.startswith(RACES[spec])]
    by_name = {timing.contender: timing for timing in race.timings}
    costs = []
    for trainer in TRAINERS:
        ratio: bench_report.Ratio = race.ratio(by_name[trainer])
        costs.append(f"{ratio.median:.2f} × plain JAX")
    return costs
