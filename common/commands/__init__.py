"""What the command line does: each command, given its options."""

import argparse
import json
import pathlib
from typing import Any

import rich.console
import rich.progress

from common.errors import BatchError, StateError

LEGEND = """
left ~ right: what is held against what. A cell: the largest difference over
the array's largest magnitude, the same in ULPs of float32 (u), what is
allowed, the verdict. `--html FILE` explains each row.
""".strip()
PAIRS = (("equinox", "reference"), ("flax", "reference"), ("equinox", "flax"))
# What the header of a file must tell to build its trainer again.
RESUMED = ("spec", "hyper_parameters", "dtype", "seed")


def compare(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `compare`."""
    from common import registry
    from common.comparison import report
    from common.comparison import text as report_text
    from common.comparison.lockstep import compare_all
    from common.models import specs
    from common.training import checks, data
    from common.training.building import build

    _require_file(options.json, ".json")
    _require_file(options.html, ".html")
    checks.check_steps(options.steps)
    models = options.model or specs()
    cells = [(model, dtype) for model in models for dtype in options.dtype]
    built = [
        {
            backend: build(
                model,
                backend=backend,
                dtype=dtype,
                seed=options.seed,
                **_hyper_parameters(options),
            )
            for backend in registry.backends()
        }
        for model, dtype in cells
    ]
    reports, parts = [], []
    with _progress(console) as bar:
        task = bar.add_task("", total=len(cells) * options.steps)
        for (model, dtype), trainers in zip(cells, built, strict=True):
            bar.update(task, description=f"{model} {dtype}")
            dataset = data.dataset(trainers["reference"].spec, dtype=dtype)
            reports.append(
                compare_all(
                    trainers,
                    PAIRS,
                    dataset.train_xs[:32],
                    dataset.train_ys[:32],
                    steps=options.steps,
                    tick=lambda: bar.advance(task),
                )
            )
            console.print(*report_text.render(reports[-1]), sep="\n")
            parts += _parts(reports[-1], trainers, dataset)
    for part in parts:
        console.print(part, markup=False, highlight=False)
    console.print(LEGEND, style="dim")
    failed = [one.verdict for one in reports if not one.ok]
    console.print(
        f"They disagree. First: {failed[0]}" if failed else "All agree.",
        style="bold red" if failed else "bold green",
    )
    for path in (options.json, options.html):
        if path is not None:
            report.save(reports, path)
            console.print(f"Wrote {path}.")
    return 1 if failed else 0


def _parts(report: Any, trainers: Any, dataset: Any) -> list[str]:
    """Says at which lines of source a step of two backends parts, if it does.

    From where the run ended; a fault that shows only there and then is left
    to the report's first divergence.
    """
    from common.comparison.steps import diff_steps

    first = report.first_divergence
    if first is None:
        return []
    found = diff_steps(
        trainers[first.left],
        trainers[first.right],
        dataset.train_xs[:32],
        dataset.train_ys[:32],
    )
    if found.ok:
        return []
    pair = f"{report.spec} {report.dtype}, {first.left} ~ {first.right}"
    return [f"{pair}, one step of each:\n{found}"]


def diff(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `diff`."""
    import jax

    from common import environment
    from common.commands import arguments as named
    from common.comparison import functions
    from common.divergence import page
    from common.errors import choose

    _require_file(options.json, ".json")
    _require_file(options.html, ".html")
    dtypes = {"float64": "float64", "float32": "float32", "none": None}
    if options.dtype not in dtypes:
        raise choose("--dtype", options.dtype, dtypes)
    left = named.function(options.left)
    right = named.function(options.right)
    inputs = named.inputs(options.inputs, options.seed)
    with (
        console.status("running both"),
        jax.enable_x64(options.dtype == "float64"),
    ):
        try:
            found = functions.diff(
                left, right, *inputs, dtype=dtypes[options.dtype]
            )
        except TypeError as error:  # of the user's function, not a bug
            raise ValueError(str(error)) from error
    console.print(str(found), markup=False, highlight=False, soft_wrap=True)
    facts = environment.environment()
    if options.json is not None:
        _write(options.json, page.to_json(found, facts), console)
    if options.html is not None:
        names = (options.left, options.right)
        _write(options.html, page.render(found, names, facts), console)
    return 0 if found.ok else 1


def train(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `train`."""
    from common.training import data

    _require_file(options.save)
    trainer = _resume(options) if options.resume else _start(options)
    dataset = data.dataset(trainer.spec, dtype=trainer.dtype)
    try:
        losses = trainer.fit(
            dataset.train_xs,
            dataset.train_ys,
            epochs=options.epochs,
            batch_size=options.batch_size,
        )
    except BatchError:  # before the first step: there is nothing to keep
        raise
    except BaseException:
        _save(trainer, options.save, console)
        raise
    _save(trainer, options.save, console)
    metrics = trainer.evaluate(dataset.test_xs, dataset.test_ys)
    console.print(
        f"{trainer.spec.name} in {trainer.backend.name}: {len(losses)} steps "
        f"({int(trainer.state().step)} in all) on {len(dataset.train_xs)} "
        "examples"
    )
    shown = ", ".join(f"{k} {float(v):.4f}" for k, v in metrics.items())
    console.print(f"{len(dataset.test_xs)} held-out examples: {shown}")
    return 0


def _save(
    trainer: Any, path: pathlib.Path | None, console: rich.console.Console
) -> None:
    if path is not None:
        trainer.save(path)
        console.print(f"Wrote {path}.")


def _start(options: argparse.Namespace) -> Any:
    from common.training.building import build

    return build(
        options.model or "digits_cnn",
        backend=options.backend,
        dtype=options.dtype or "float32",
        seed=options.seed or 0,
        **_hyper_parameters(options),
    )


def _resume(options: argparse.Namespace) -> Any:
    """Builds the trainer of a file, in any backend."""
    from common.state import State
    from common.training.building import build

    _, meta = State.read(options.resume)
    missing = [key for key in RESUMED if key not in meta]
    if missing:
        raise StateError(
            f"state file {str(options.resume)!r}: got a header without "
            f"{', '.join(missing)}, expected {', '.join(RESUMED)}. Write it "
            "with `Trainer.save`."
        )
    hyper_parameters: dict[str, Any] = meta["hyper_parameters"]
    for name, got, there in (
        ("model", options.model, meta["spec"]),
        ("dtype", options.dtype, meta["dtype"]),
        ("seed", options.seed, meta["seed"]),
        (
            "batch-norm",
            options.batch_norm,
            hyper_parameters.get("batch_norm"),
        ),
    ):
        if got not in (None, there):
            raise ValueError(
                f"--{name}: got {got!r}, expected {there!r} as in "
                f"{str(options.resume)!r}. Leave it out."
            )
    trainer = build(
        meta["spec"],
        backend=options.backend,
        dtype=meta["dtype"],
        seed=meta["seed"],
        **hyper_parameters,
    )
    return trainer.load(options.resume)


def differences(
    options: argparse.Namespace, console: rich.console.Console
) -> int:
    """Runs `differences`."""
    from common import differences as catalogue
    from common.differences import report as differences_report

    _require_file(options.json, ".json")
    rows = [it for it in catalogue.DIFFERENCES if options.name in it.name]
    if not rows:
        names = ", ".join(it.name for it in catalogue.DIFFERENCES)
        raise ValueError(
            f"--name: got {options.name!r}, expected a part of one of {names}."
            " Shorten it."
        )
    with _progress(console) as bar:
        measured = [
            catalogue.measure(row)
            for row in bar.track(rows, description="measuring")
        ]
    console.print(differences_report.table(measured))
    if options.json is not None:
        text = differences_report.to_json(measured)
        _write(options.json, text, console)
    return 0


def layers(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `layers`."""
    from common.comparison import layer_judge as judge
    from common.comparison import layer_report as report
    from common.errors import choose
    from common.layers.table import LAYERS

    _require_file(options.json, ".json")
    for dtype in options.dtype:
        if dtype not in judge.DTYPES:
            raise choose("--dtype", dtype, judge.DTYPES)
    part = options.name.lower()
    names = [
        name
        for name, row in LAYERS.items()
        if any(
            part in it.lower()
            for it in (name, row.family, *row.equinox.stock, *row.flax.stock)
        )
    ]
    if not names:
        raise ValueError(
            f"--name: got {options.name!r}, expected a part of one of "
            f"{', '.join(LAYERS)}. Shorten it."
        )
    with _progress(console) as bar:
        cells = len(names) * len(report.LIBRARIES) * len(options.dtype)
        task = bar.add_task("measuring", total=cells)
        measured = report.measure(
            names, options.dtype, tick=lambda: bar.advance(task)
        )
    console.print(report.table(measured))
    console.print(report.LEGEND, style="dim")
    apart = [it for it in measured if not it.ok]
    for it in apart:
        console.print(*report.problems(it), sep="\n", style="red")
    if options.json is not None:
        _write(options.json, report.to_json(measured), console)
    return 1 if apart else 0


def bench(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `bench`."""
    from common import environment
    from common.benchmark import report as bench_report
    from common.benchmark import suite as benchmark

    _require_file(options.json, ".json")
    found = benchmark.run(quick=options.quick, command=environment.command())
    console.print(*bench_report.render(found), sep="\n")
    if options.json is not None:
        _write(options.json, json.dumps(found.to_json(), indent=1), console)
    return 0


def _hyper_parameters(options: argparse.Namespace) -> dict[str, Any]:
    if options.batch_norm is None:
        return {}
    return {"batch_norm": options.batch_norm}


def _require_file(path: pathlib.Path | None, suffix: str = "") -> None:
    """Checks a file's name before the work, not after it."""
    if path is None:
        return
    if path.is_dir():
        raise ValueError(
            f"file: got the folder {str(path)!r}, expected a file. Add a name."
        )
    if not path.name.endswith(suffix) or not path.parent.is_dir():
        ending = f" that ends in {suffix!r}" if suffix else ""
        raise ValueError(
            f"file: got {str(path)!r}, expected a name{ending} in a folder "
            "that exists. Change it."
        )


def _write(
    path: pathlib.Path, text: str, console: rich.console.Console
) -> None:
    path.write_text(text.rstrip() + "\n", encoding="utf-8")
    console.print(f"Wrote {path}.")


def _progress(console: rich.console.Console) -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
