"""Writes what the pages include: measured, read or printed, never typed."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import plots

from common import (
    agreement,
    bench_report,
    cli,
    differences,
    differences_report,
    environment,
    registry,
)
from common.comparison import compare_all
from common.data import dataset
from common.layers import BATCH_NORM_DIALECTS
from common.protocol import Spec
from common.report import QUANTITIES, Report, ulps
from common.trainer import Trainer

ROOT = pathlib.Path(__file__).parents[1]
BENCH = ROOT / "docs" / "data" / "bench.json"


def write(folder: pathlib.Path) -> None:
    """Writes every generated file.

    Args:
        folder: where to; made if it is not there.
    """
    folder.mkdir(exist_ok=True)
    # Most of the work is compiling, which hardly changes between two builds.
    jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache/jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_enable_x64", True)
    files = {
        "agreement.md": agreement_tables(),
        "reports.md": reports(),
        **batch_norm(),
        **benchmark(),
        "differences.md": known_differences(),
        "names.md": names(),
        "command_line.md": command_line(),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def versions() -> str:
    """Names the versions that everything was measured with."""
    return ", ".join(
        f"{name} {it}" for name, it in environment.versions().items()
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table whose columns after the first are numbers."""
    lines = [columns, [":--", *["--:"] * (len(columns) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


# --- the command line -------------------------------------------------------


def command_line() -> str:
    """Prints `--help` of every command."""
    return "".join(
        f"## {name}\n\n```text\n{_help(name)}```\n\n" for name in cli.COMMANDS
    )


def _help(command: str) -> str:
    os.environ |= {"COLUMNS": "80", "NO_COLOR": "1"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.main([command, "--help"])
    return printed.getvalue()


# --- agreement --------------------------------------------------------------


def agreement_tables() -> str:
    """Writes the order of proof with its tolerances, and the envelope."""
    rows = []
    for quantity, meaning in QUANTITIES.items():
        cells = [f"`{quantity}`", meaning]
        for dtype in ("float64", "float32"):
            bound = agreement.TOLERANCES[dtype].get(quantity, 0.0)
            cells.append(_bound(bound, dtype))
        cells.append("yes" if quantity in agreement.DRIFTS else "")
        rows.append(cells)
    text = (
        "| quantity | what it is | float64 | float32 | grows |\n"
        "| :-- | :-- | --: | --: | :-: |\n"
    )
    text += "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n"
    factors = [
        (f"{steps:,}", f"{1 + (steps / agreement.DRIFT_STEPS) ** 2:,.0f}")
        for steps in (1, 10, 100, 1000)
    ]
    text += (
        "In float32 a tolerance that grows is multiplied by "
        f"1 + (steps / {agreement.DRIFT_STEPS})²:\n\n"
    )
    text += table(("steps", "factor"), factors)
    platforms = (
        f"{factor} on the {name.upper()}"
        for name, factor in agreement.PLATFORMS.items()
    )
    text += f"Every tolerance is multiplied by {', '.join(platforms)}.\n"
    return text


def _bound(bound: float, dtype: str) -> str:
    if bound == 0:
        return "equal"
    if dtype == "float64":
        return f"{bound:.0e}".replace("e-0", "e-")
    return f"{ulps(bound, dtype):.0f}\N{NO-BREAK SPACE}ULP"


def reports() -> str:
    """Compares the example's model in all backends, in both dtypes."""
    return "".join(
        f"```text\n{_compare('stateful_mlp', dtype, steps=50)}\n```\n\n"
        for dtype in ("float64", "float32")
    )


def _compare(spec: str, dtype: str, *, steps: int) -> Report:
    trainers = {
        backend: registry.build(spec, backend=backend, dtype=dtype)
        for backend in registry.backends()
    }
    data = dataset(trainers["reference"].spec, dtype=dtype)
    xs, ys = data.train_xs[:64], data.train_ys[:64]
    return compare_all(trainers, cli.PAIRS, xs, ys, steps=steps)


# --- batch normalisation ----------------------------------------------------

FEATURES, ROWS = 4, 64
MOMENTUM, EPS = 0.99, 1e-5
LIFT = 4096.0
"""Keeps every relu open; small enough to be added and taken off exactly."""

Curve = dict[int, float]


def batch_norm() -> dict[str, str]:
    """Measures the three dialects, in every backend."""
    trainers = {
        dialect: [_norm(name, dialect) for name in registry.backends()]
        for dialect in BATCH_NORM_DIALECTS
    }
    steps = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500]
    variances = _measure(trainers, lambda it: _inference_variance(it, 500))
    means = _measure(trainers, lambda it: _training_outputs(it, "mean", 501))
    deviations = _measure(
        trainers, lambda it: _training_outputs(it, "deviation", 501)
    )
    calls = [1, 2, 3, 11, 101, 301, 501]
    return {
        "inference_variance.md": _dialects("steps", variances, steps),
        "inference_variance.svg": plots.lines(
            variances.curves,
            x="training steps",
            y="variance that inference divides by",
            wanted=4.0,
            log=True,
        ),
        "training_mean.md": _dialects("training call", means, calls),
        "training_deviation.md": _dialects("training call", deviations, calls),
        "training_mean.svg": plots.lines(
            means.curves,
            x="training calls",
            y="mean of the output in training",
            wanted=0.0,
        ),
    }


class Measured(typing.NamedTuple):
    """A number over training, in each dialect.

    Attributes:
        curves: the reference's number by step, by dialect.
        apart: the largest distance of a backend from the reference.
    """

    curves: dict[str, Curve]
    apart: float


def _measure(
    trainers: dict[str, list[Trainer]], read: Callable[[Trainer], Curve]
) -> Measured:
    curves, apart = {}, 0.0
    for dialect, group in trainers.items():
        first, *others = (read(trainer) for trainer in group)
        curves[dialect] = first
        apart = max(
            apart, *(abs(it[k] - first[k]) for it in others for k in first)
        )
    return Measured(curves, apart)


def _norm(backend: str, dialect: str) -> Trainer:
    """Builds a model that is a BatchNorm and nothing else."""
    trainer = registry.build(
        "deep_mlp",
        backend=backend,
        depth=1,
        size=FEATURES,
        batch_norm=dialect,
        momentum=MOMENTUM,
        eps=EPS,
        dtype="float64",
        optimizer=optax.sgd(0.0),
        metrics={
            "mean": lambda predictions, targets: jnp.mean(predictions),
            "deviation": lambda predictions, targets: jnp.std(predictions),
        },
    )
    state = trainer.state()
    same = np.eye(FEATURES)
    lift = np.full(FEATURES, LIFT)
    params = {
        "blocks.0.linear.weight": same,
        "blocks.0.norm.weight": np.ones(FEATURES),
        "blocks.0.norm.bias": lift,
        "head.weight": same,
        "head.bias": -lift,
    }
    return trainer.load(dataclasses.replace(state, params=params))


def _batch(mean: float, deviation: float) -> np.ndarray:
    """Draws a batch whose mean and deviation are exactly these."""
    xs = np.random.default_rng(0).normal(size=(ROWS, FEATURES))
    xs = (xs - xs.mean(0)) / xs.std(0)
    return mean + deviation * xs


def _inference_variance(trainer: Trainer, steps: int) -> Curve:
    """Trains on one batch; returns what inference takes for its variance."""
    start, xs = trainer.state(), _batch(0.0, 2.0)
    probe = np.stack([np.zeros(FEATURES), np.ones(FEATURES)])
    curve = {}
    for step in range(steps + 1):
        if step:
            trainer.step(xs, xs)
        low, high = np.asarray(trainer.predict(probe))
        slope = np.mean(high - low)
        curve[step] = float(1 / slope**2 - EPS)
    trainer.load(start)
    return curve


def _training_outputs(trainer: Trainer, metric: str, calls: int) -> Curve:
    """Trains on one batch, then on shifted ones; returns their outputs."""
    start, first, later = trainer.state(), _batch(0, 1), _batch(5, 3)
    curve = {}
    for call in range(1, calls + 1):
        xs = first if call == 1 else later
        curve[call] = float(trainer.step(xs, xs)[metric])
    trainer.load(start)
    return curve


def _dialects(x: str, measured: Measured, at: Sequence[int]) -> str:
    curves = measured.curves
    columns = (x, *(f'`"{dialect}"`' for dialect in curves))
    rows = (
        (str(i), *(_number(curve[i]) for curve in curves.values())) for i in at
    )
    within = f"within {measured.apart:.0e}" if measured.apart else "exactly"
    return table(columns, rows) + (
        f"Equinox, Flax and the reference agree {within}, at every step.\n"
    )


def _number(x: float) -> str:
    return f"{x:.4f}" if abs(x) > 5e-5 else "0"


# --- benchmark and differences ----------------------------------------------


def benchmark() -> dict[str, str]:
    """Writes what the stored samples say."""
    stored = bench_report.Benchmark.from_json(json.loads(BENCH.read_text()))
    return {
        "benchmark.md": bench_report.markdown(stored),
        "benchmark_command.md": f"```text\n{stored.command}\n```\n",
        "benchmark.svg": "".join(
            plots.ratios(race, bench_report.WANTED) for race in stored.races
        ),
    }


def known_differences() -> str:
    """Measures every known difference; leaves the page's title to it."""
    measured = [differences.measure(it) for it in differences.DIFFERENCES]
    title, _, text = differences_report.markdown(measured).partition("\n")
    assert title.startswith("# ")
    return text


# --- names ------------------------------------------------------------------


def names() -> str:
    """Writes the names of every spec, and where each library keeps them."""
    return "".join(
        _names(registry.find_spec(name, {})) for name in registry.specs()
    )


def _names(spec: Spec) -> str:
    equinox = _equinox_places(registry.build(spec, backend="equinox"))
    flax = _flax_places(registry.build(spec, backend="flax"))
    text = f"### `{spec.name}`\n\n"
    text += "| name | shape | group | Equinox | Flax NNX |\n"
    text += "| :-- | :-- | :-- | :-- | :-- |\n"
    for name, variable in spec.variables().items():
        cells = (
            f"`{name}`",
            f"`{variable.shape}`",
            "params" if variable.trainable else "buffers",
            _place(*equinox[name], variable.shape),
            _place(*flax[name], variable.shape),
        )
        text += f"| {' | '.join(cells)} |\n"
    return text + "\n"


def _place(path: str, shape: Any, canonical: Any) -> str:
    return f"`{path}`" + ("" if shape == canonical else f" `{shape}`")


def _equinox_places(trainer: Trainer) -> dict[str, tuple[str, Any]]:
    model, state, *_ = trainer.native
    backend: Any = trainer.backend
    arrays = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    layouts, _ = jax.tree_util.tree_flatten_with_path(backend.parameters)
    places = {
        layout.name: (f"model{jax.tree_util.keystr(path)}", x.shape)
        for (path, layout), x in zip(layouts, arrays, strict=True)
    }

    def is_index(x):
        return isinstance(x, eqx.nn.StateIndex)

    for path, index in jax.tree_util.tree_flatten_with_path(
        model, is_leaf=is_index
    )[0]:
        if not is_index(index):
            continue
        where = f"state.get(model{jax.tree_util.keystr(path)})"
        found, _ = jax.tree_util.tree_flatten_with_path(
            backend.buffers.get(index)
        )
        values = jax.tree.leaves(state.get(index))
        for (inner, layout), x in zip(found, values, strict=True):
            inner = jax.tree_util.keystr(inner)
            places[layout.name] = (where + inner, x.shape)
    return places


def _flax_places(trainer: Trainer) -> dict[str, tuple[str, Any]]:
    module: Any = trainer.native[0]
    backend: Any = trainer.backend
    places = {}
    for path, layout in (backend.parameters | backend.buffers).items():
        where, node = "module", module
        for word in path:
            if isinstance(word, int):
                where, node = f"{where}[{word}]", node[word]
            else:
                where, node = f"{where}.{word}", getattr(node, word)
        places[layout.name] = (where, node[...].shape)
    return places
