"""Writes what the pages include: measured, read or printed, never typed.

The build writes all of it, and `python docs/generate.py PART ...` some parts:
the keys of `PARTS`.
"""

import concurrent.futures
import contextlib
import gc
import io
import json
import multiprocessing
import os
import pathlib
import sys
from collections.abc import Iterable
from typing import Any

import align_pages
import dictionary_pages
import diff_pages
import headline_pages
import jax
import layer_pages
import many_devices_pages
import norm_pages
import optimizer_pages
import plots
import recipe_pages
import scan_pages
from reproduce import with_source
from tables import table

from common import agreement, cli, differences, environment, registry
from common.benchmark import report as bench_report
from common.commands import COMMANDS
from common.commands.compare import BATCH_SIZE, PAIRS
from common.comparison.lockstep import compare_all
from common.comparison.report import Report
from common.comparison.rows import QUANTITIES, ulps
from common.differences import report as differences_report
from common.errors import choose
from common.layouts import Layout
from common.models import find_spec, specs
from common.protocol import Spec
from common.rendering.files import to_json
from common.training.building import build
from common.training.data import dataset
from common.training.trainer import Trainer

ROOT = pathlib.Path(__file__).parents[1]
BENCH = ROOT / "docs" / "data" / "bench.json"


def write(folder: pathlib.Path) -> None:
    """Writes every generated file, with a process for each core.

    Args:
        folder: where to; made if it is not there.
    """
    write_parts(PARTS, folder)


def write_parts(names: Iterable[str], folder: pathlib.Path) -> None:
    """Writes the files of some parts, with a process for each core.

    Args:
        names: keys of `PARTS`.
        folder: where to; made if it is not there.

    Raises:
        ValueError: if there is no such part.
    """
    for name in names:
        if name not in PARTS:
            raise choose("part", name, PARTS)
    folder.mkdir(exist_ok=True)
    with concurrent.futures.ProcessPoolExecutor(
        max_workers=min(os.cpu_count() or 1, len(PARTS)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_configure,
    ) as pool:
        parts = [pool.submit(PARTS[name]) for name in names]
        for part in concurrent.futures.as_completed(parts):
            for name, text in part.result().items():
                text = with_source(name, text)
                (folder / name).write_text(text, encoding="utf-8")


def _configure() -> None:
    # Most of the work is compiling, which hardly changes between two builds.
    jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache/jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_enable_x64", True)
    # Tracing makes many objects that live on, and looking at them again and
    # again is slow; tests/conftest.py does the same.
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)


def versions() -> str:
    """Returns the versions of the libraries that the pages were built with."""
    return ", ".join(
        f"{name} {version}" for name, version in environment.versions().items()
    )


# --- the command line -------------------------------------------------------


def command_line() -> str:
    """Prints `--help` of every command."""
    return "".join(
        f"## {name}\n\n```text\n{_help(name)}```\n\n" for name in COMMANDS
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


def layer_tolerances() -> str:
    """Writes the tolerances of the layer table."""
    dtypes = tuple(agreement.LAYER_TOLERANCES)
    rows = []
    for quantity in agreement.LAYER_TOLERANCES["float64"]:
        bounds = [
            agreement.LAYER_TOLERANCES[dtype].get(quantity) for dtype in dtypes
        ]
        rows.append(
            (
                quantity,
                *(
                    "" if bound is None else _bound(bound, dtype)
                    for bound, dtype in zip(bounds, dtypes, strict=True)
                ),
            )
        )
    return table(("quantity", *dtypes), rows)


def _bound(bound: float, dtype: str) -> str:
    if bound == 0:
        return "equal"
    if dtype == "float64":
        return f"{bound:.0e}".replace("e-0", "e-")
    return f"{ulps(bound, dtype):.0f}\N{NO-BREAK SPACE}ULP"


def reports() -> dict[str, str]:
    """Compares the example's model in all backends, in both dtypes."""
    found = [
        _compare("stateful_mlp", dtype, steps=50)
        for dtype in ("float64", "float32")
    ]
    return {
        "reports.md": "".join(
            f"```text\n{report}\n```\n\n" for report in found
        ),
        "reports.json": to_json(
            {
                "environment": environment.environment(),
                "reports": [report.to_json() for report in found],
            }
        ),
    }


def _compare(spec: str, dtype: str, *, steps: int) -> Report:
    trainers = {
        backend: build(spec, backend=backend, dtype=dtype)
        for backend in registry.backends()
    }
    data = dataset(trainers["reference"].spec, dtype=dtype)
    xs, ys = data.train_xs[:BATCH_SIZE], data.train_ys[:BATCH_SIZE]
    return compare_all(trainers, PAIRS, xs, ys, steps=steps)


# --- benchmark and differences ----------------------------------------------


def benchmark() -> dict[str, str]:
    """Writes what the stored samples say."""
    stored = bench_report.Benchmark.from_json(json.loads(BENCH.read_text()))
    return {
        "benchmark.md": bench_report.markdown(stored),
        "benchmark.svg": "".join(
            plots.ratios(race, bench_report.MAX_RATIO) for race in stored.races
        ),
    }


def known_differences() -> dict[str, str]:
    """Measures every known difference; the page supplies its own title."""
    measured = [
        differences.measure(row) for row in differences.known_differences()
    ]
    title, _, text = differences_report.markdown(measured).partition("\n")
    assert title.startswith("# ")
    return {
        "differences.md": text,
        "differences.json": differences_report.to_json(measured),
    }


# --- names ------------------------------------------------------------------


def names() -> str:
    """Writes the names of every spec, and where each library keeps them."""
    return "".join(_names(find_spec(name, {})) for name in specs())


def _names(spec: Spec) -> str:
    equinox = _layouts(build(spec, backend="equinox"))
    flax = _layouts(build(spec, backend="flax"))
    text = f"### `{spec.name}`\n\n"
    text += "| name | shape | group | Equinox | Flax NNX |\n"
    text += "| :-- | :-- | :-- | :-- | :-- |\n"
    for name, variable in spec.variables().items():
        cells = (
            f"`{name}`",
            f"`{variable.shape}`",
            "params" if variable.trainable else "buffers",
            _place(equinox[name], variable.shape),
            _place(flax[name], variable.shape),
        )
        text += f"| {' | '.join(cells)} |\n"
    return text + "\n"


def _place(layout: Layout, canonical: Any) -> str:
    """Names the native arrays of a canonical one, and their shape."""
    shapes = {source.shape for source in layout.sources} - {canonical}
    paths = ", ".join(f"`{source.name}`" for source in layout.sources)
    return paths + "".join(f" `{shape}`" for shape in shapes)


def _layouts(trainer: Trainer) -> dict[str, Layout]:
    backend: Any = trainer.backend
    return backend.layouts.canonical


def printed() -> dict[str, str]:
    """Returns what takes no measuring, or little."""
    return {
        "agreement.md": agreement_tables(),
        "layer_tolerances.md": layer_tolerances(),
        "names.md": names(),
        "command_line.md": command_line(),
    }


def compared() -> dict[str, str]:
    """Returns the reports of comparisons, and the known differences."""
    return reports() | known_differences()


# The parts that take longest come first.
PARTS = {
    "layers": layer_pages.pages,
    "compared": compared,
    "optimizers": optimizer_pages.pages,
    "batch_norm": norm_pages.pages,
    "align": align_pages.pages,
    "diff": diff_pages.pages,
    "printed": printed,
    "benchmark": benchmark,
    "dictionary": dictionary_pages.pages,
    "headline": headline_pages.pages,
    "recipes": recipe_pages.pages,
    "scan": scan_pages.pages,
    "many_devices": many_devices_pages.pages,
}
"""The functions that return generated files, by their names."""


if __name__ == "__main__":
    write_parts(sys.argv[1:], ROOT / "docs" / "_generated")
