"""`compare`: trains models side by side and checks that they agree."""

import argparse
import pathlib
from collections.abc import Mapping
from typing import Any

import rich.console

from common.commands import (
    arguments,
    batches,
    files,
    shared_options,
    user_models,
    user_modules,
)
from common.commands.terminal import count
from common.rendering.progress import ProgressBar

ABOUT = """
Train models in both libraries side by side and check that they agree.

LEFT and RIGHT are package.module:name, imported from the working directory:
your models of Equinox or Flax NNX, or functions that return one. Without
them, the models of this project are compared in all backends. Arrays are
matched by name, by --rules FILE, or by running both models, as `align` does.

Prints a table for each model and dtype. Its rows are the quantities in the
order in which they are checked: the first row that fails tells where to look.
Its columns are the pairs of backends. A cell holds the largest error, the
tolerance, and the verdict ("u" stands for units in the last place of
float32). Exits with 0 only if everything agrees.
"""
EXAMPLES = """
{program}
{program} compare --model stateful_mlp --batch-norm standard
{program} compare --dtype float64 --steps 1000
{program} compare --model digits_cnn --accumulate 4
{program} compare --compute-dtype bfloat16
{program} compare --html report.html --json report.json
{program} compare old.model:make new.model:make --inputs batch.npz --carry
{program} compare ours:make theirs:make --inputs shape=8,32 --rules map.txt
"""
LEGEND = """
left ~ right: the two backends that are compared. A cell: the largest error
relative to the array's largest magnitude, the same in ULPs of float32 (u),
the tolerance, and the verdict. `--html FILE` explains each row.
""".strip()
PAIRS = (("equinox", "reference"), ("flax", "reference"), ("equinox", "flax"))
BATCH_SIZE = 32
STEPS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `compare` to its parser."""
    parser.add_argument(
        "models", nargs="*", metavar="LEFT RIGHT", help=user_models.MODEL
    )
    batches.add_options(parser)
    parser.add_argument(
        "--targets",
        nargs="+",
        metavar="T",
        help="targets of LEFT and RIGHT, as FILE.npz or shape=8,10 (default: "
        "the loss is a random projection of the outputs)",
    )
    parser.add_argument(
        "--rules",
        type=pathlib.Path,
        metavar="FILE",
        help="the mapping between the arrays of LEFT and RIGHT",
    )
    parser.add_argument(
        "--carry",
        action="store_true",
        help="let RIGHT start from the arrays of LEFT, whatever its own are",
    )
    parser.add_argument(
        "--model", nargs="+", metavar="M", help="models (default: all)"
    )
    parser.add_argument(
        "--dtype",
        nargs="+",
        metavar="D",
        help="float64, float32 (default: both)",
    )
    parser.add_argument(
        "--compute-dtype",
        metavar="D",
        help="compare in mixed precision with float32 parameters: bfloat16 or "
        "float16 (default: compute in the dtype of the parameters)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="training steps (default: 100, and 10 for LEFT and RIGHT)",
    )
    parser.add_argument(
        "--batch-norm",
        metavar="DIALECT",
        help="ema, batch, standard or torch (default: that of each model); "
        "for LEFT and RIGHT, resume or serve, as for `port`",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the initial values and dropout masks (default: 0)",
    )
    parser.add_argument(
        "--accumulate",
        type=int,
        metavar="K",
        help="parts in which each batch is computed (default: 1)",
    )
    shared_options.add_json(parser, "all errors")
    shared_options.add_html(parser, "tables and plots")


def run(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `compare`."""
    from common.comparison import report
    from common.comparison import text as report_text
    from common.comparison.lockstep import compare_all
    from common.training import checks, data

    files.require_writable(options.json, ".json")
    files.require_writable(options.html, ".html")
    if options.models:
        return _compare_own(options, console)
    _require_none(options, *batches.OPTIONS, "targets", "rules", "carry")
    if options.compute_dtype is not None:
        _require_none(options, "dtype")
        options.dtype = ["float32"]
    options.dtype = options.dtype or ["float64", "float32"]
    options.steps = STEPS if options.steps is None else options.steps
    checks.check_steps(options.steps)
    cases = _build(options)
    reports, diffs = [], []
    with ProgressBar(
        len(cases) * options.steps, console=console, transient=True
    ) as bar:
        for (model, dtype), trainers in cases.items():
            bar.describe(f"{model} {dtype}")
            dataset = data.dataset(trainers["reference"].spec, dtype=dtype)
            reports.append(
                compare_all(
                    trainers,
                    PAIRS,
                    dataset.train_xs[:BATCH_SIZE],
                    dataset.train_ys[:BATCH_SIZE],
                    steps=options.steps,
                    tick=bar.advance,
                )
            )
            console.print(*report_text.render(reports[-1]), sep="\n")
            diffs += _source_lines(reports[-1], trainers, dataset)
    for diff in diffs:
        console.print(diff, markup=False, highlight=False)
    console.print(LEGEND, style="dim")
    _print_summary(reports, console)
    for path in (options.json, options.html):
        if path is not None:
            report.save(reports, path)
            console.print(f"Wrote {path}.", soft_wrap=True)
    return 0 if all(report.ok for report in reports) else 1


def _compare_own(
    options: argparse.Namespace, console: rich.console.Console
) -> int:
    """Compares two models of the user."""
    from common.comparison import comparing, report
    from common.comparison import text as report_text

    if len(options.models) != 2:
        raise ValueError(
            f"compare: got {options.models}, expected two models. Write LEFT "
            "and RIGHT, or neither."
        )
    _require_none(options, "model", "dtype", "compute_dtype", "accumulate")
    with user_modules.refuse_clashes(), user_models.report_type_errors():
        inputs = [batches.batch(arrays) for arrays in batches.read(options)]
        ys = options.targets and batches.batch(
            arguments.inputs(options.targets, options.seed + 1, "--targets")
        )
        rules = user_models.rules(options.rules)
        left, right = map(user_models.model, options.models)
        with console.status("Comparing"):
            found = comparing.compare(
                left,
                right,
                None,
                ys,
                left_inputs=inputs[0],
                right_inputs=inputs[1],
                rules=rules,
                steps=options.steps,
                carry=options.carry,
                batch_norm=options.batch_norm,
            )
    console.print(*report_text.render(found), sep="\n")
    console.print(LEGEND, style="dim")
    for path in (options.json, options.html):
        if path is not None:
            report.save([found], path)
            console.print(f"Wrote {path}.", soft_wrap=True)
    return 0 if found.ok else 1


def _require_none(options: argparse.Namespace, *names: str) -> None:
    given = [
        f"--{name.replace('_', '-')}"
        for name in names
        if getattr(options, name)
    ]
    if given:
        whom = "without" if not options.models else "with"
        raise ValueError(
            f"compare {whom} LEFT and RIGHT: got {', '.join(given)}, expected "
            "none of them. Leave them out."
        )


def _build(
    options: argparse.Namespace,
) -> dict[tuple[str, str], dict[str, Any]]:
    """Builds the trainers of every backend, by model and dtype."""
    from common.models import specs
    from common.registry import backends
    from common.training.building import build

    return {
        (model, dtype): {
            backend: build(
                model,
                backend=backend,
                dtype=dtype,
                compute_dtype=options.compute_dtype,
                seed=options.seed,
                accumulate=1
                if options.accumulate is None
                else options.accumulate,
                **shared_options.hyper_parameters(options),
            )
            for backend in backends()
        }
        for model in options.model or specs()
        for dtype in options.dtype
    }


def _source_lines(
    report: Any, trainers: Mapping[str, Any], dataset: Any
) -> list[str]:
    """Names the source lines at which one step of two backends diverges.

    The step starts from where the run ended. A fault that shows only earlier
    in the run is left to the report's first divergence.
    """
    from common.comparison.steps import diff_steps

    first = report.first_divergence
    if first is None:
        return []
    found = diff_steps(
        trainers[first.left],
        trainers[first.right],
        dataset.train_xs[:BATCH_SIZE],
        dataset.train_ys[:BATCH_SIZE],
    )
    if found.ok:
        return []
    pair = f"{report.spec} {report.dtype}, {first.left} ~ {first.right}"
    return [f"{pair}, one step of each:\n{found}"]


def _print_summary(reports: list[Any], console: rich.console.Console) -> None:
    """Prints the outcome of several reports; each has printed its own."""
    if len(reports) < 2:
        return
    failed = [report.verdict for report in reports if not report.ok]
    total = count(len(reports), "comparison")
    if failed:
        line = f"{len(failed)} of {total} failed. The first: {failed[0]}"
        console.print(line, style="bold red")
    else:
        console.print(f"All {total} agree.", style="bold green")
