"""The command line: compare, train, bench, differences."""

import argparse
import json
import pathlib
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import rich.console
import rich.progress

PROGRAM = "python -m common"
ABOUT = """
The same JAX model in Equinox and in Flax NNX: trained, carried across and
shown to agree. Without a command, `compare` runs.
"""

COMPARE = """
Train every model in all backends and show where they differ.

Each table stands for one model and one dtype. Its rows are the order of
proof: the first that fails tells where to look. Its columns are the pairs; a
cell holds the largest difference, what is allowed, and the verdict (u: units
in the last place of float32). Exits with 0 only where all agree.
"""
COMPARE_EXAMPLES = """
{program}
{program} compare --model stateful_mlp --batch-norm standard
{program} compare --dtype float64 --steps 1000
{program} compare --html report.html --json report.json
"""

TRAIN = """
Train a model on its data set and tell how good it is.

digits_cnn trains on scikit-learn's 1,797 handwritten digits, a fifth of them
held out; the others on the sine waves of Equinox's example. The file is a
State in safetensors: either backend goes on from it.
"""
TRAIN_EXAMPLES = """
{program} train --backend equinox --epochs 5 --save run.safetensors
{program} train --backend flax --resume run.safetensors --epochs 5
{program} train --backend flax --model stateful_mlp --epochs 200
"""

BENCH = """
Time a training step and `fit` beside hand-written JAX.

First every contender must give the floor's losses. Then they take turns, so
each sample is a ratio to the floor of the same moment: the table shows their
median and the range of the middle half. Takes some minutes; leave the machine
alone meanwhile.
"""
BENCH_EXAMPLES = """
{program} bench
{program} bench --quick
{program} bench --json bench.json
"""

DIFFERENCES = """
Measure the known differences of the two libraries' own layers.

Each is demonstrated on the stock layers, here and now, and named with its
upstream issue.
"""
DIFFERENCES_EXAMPLES = """
{program} differences
{program} differences --name spectral
"""

PAIRS = (("equinox", "reference"), ("flax", "reference"), ("equinox", "flax"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: the words after the program's name; those of the process
            by default.

    Returns:
        The exit status: 0 for success, 1 for a disagreement, 2 for bad input.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in (*COMMANDS, "-h", "--help"):
        if not words or words[0].startswith("-"):
            words = ["compare", *words]
    options = _parser().parse_args(words)

    import jax

    # A float32 trainer turns it off again for all that it traces.
    jax.config.update("jax_enable_x64", True)
    try:
        return COMMANDS[options.command](options, rich.console.Console())
    except (ValueError, TypeError, ImportError, OSError, ArithmeticError) as e:
        if options.debug:
            raise
        rich.console.Console(stderr=True, highlight=False).print(
            f"error: {e}", style="red", markup=False
        )
        return 2


def compare(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `compare`."""
    from common import checks, data, registry, report, report_text
    from common.comparison import compare_all

    _require_file(options.json, ".json")
    _require_file(options.html, ".html")
    checks.check_steps(options.steps)
    models = options.model or registry.specs()
    cells = [(model, dtype) for model in models for dtype in options.dtype]
    built = [
        {
            backend: registry.build(
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
    reports = []
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


def train(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `train`."""
    from common import data

    _require_file(options.save)
    trainer = _resume(options) if options.resume else _start(options)
    dataset = data.dataset(trainer.spec, dtype=trainer.dtype)
    losses = trainer.fit(
        dataset.train_xs,
        dataset.train_ys,
        epochs=options.epochs,
        batch_size=options.batch_size,
    )
    metrics = trainer.evaluate(dataset.test_xs, dataset.test_ys)
    console.print(
        f"{trainer.spec.name} in {trainer.backend.name}: {len(losses)} steps "
        f"({int(trainer.state().step)} in all) on {len(dataset.train_xs)} "
        "examples"
    )
    shown = ", ".join(f"{k} {float(v):.4f}" for k, v in metrics.items())
    console.print(f"{len(dataset.test_xs)} held-out examples: {shown}")
    if options.save is not None:
        trainer.save(options.save)
        console.print(f"Wrote {options.save}.")
    return 0


def _start(options: argparse.Namespace) -> Any:
    from common.registry import build

    return build(
        options.model or "digits_cnn",
        backend=options.backend,
        dtype=options.dtype or "float32",
        seed=options.seed or 0,
        **_hyper_parameters(options),
    )


def _resume(options: argparse.Namespace) -> Any:
    """Builds the trainer of a file, in any backend."""
    from common.registry import build
    from common.state import State

    state, meta = State.read(options.resume)
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
    return trainer.load(state)


def differences(
    options: argparse.Namespace, console: rich.console.Console
) -> int:
    """Runs `differences`."""
    from common import differences as catalogue
    from common import differences_report

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


def bench(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `bench`."""
    from common import bench as benchmark
    from common import bench_report, report

    _require_file(options.json, ".json")
    found = benchmark.run(quick=options.quick, command=report.command())
    console.print(*bench_report.render(found), sep="\n")
    if options.json is not None:
        _write(options.json, json.dumps(found.to_json(), indent=1), console)
    return 0


COMMANDS = {
    "compare": compare,
    "train": train,
    "bench": bench,
    "differences": differences,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=ABOUT.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"`{PROGRAM} COMMAND --help` teaches a command by example.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, about: str, examples: str):
        about = about.strip()
        sub = commands.add_parser(
            name,
            help=about.splitlines()[0],
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="examples:\n"
            + textwrap.indent(examples.strip(), "  ").format(program=PROGRAM),
        )
        sub.add_argument(
            "--debug", action="store_true", help="show where an error is from"
        )
        return sub

    path = pathlib.Path
    sub = command("compare", COMPARE, COMPARE_EXAMPLES)
    sub.add_argument(
        "--model", nargs="+", metavar="M", help="models (default: all)"
    )
    sub.add_argument(
        "--dtype",
        nargs="+",
        metavar="D",
        default=["float64", "float32"],
        help="float64, float32 (default: both)",
    )
    sub.add_argument(
        "--steps",
        type=int,
        default=100,
        metavar="N",
        help="training steps (default: 100)",
    )
    sub.add_argument(
        "--batch-norm",
        metavar="DIALECT",
        help="ema, batch or standard (default: each model's own)",
    )
    sub.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of initial values and dropout masks (default: 0)",
    )
    sub.add_argument(
        "--json", type=path, metavar="FILE", help="write all figures"
    )
    sub.add_argument(
        "--html", type=path, metavar="FILE", help="write a page with plots"
    )

    sub = command("train", TRAIN, TRAIN_EXAMPLES)
    sub.add_argument(
        "--backend",
        required=True,
        metavar="B",
        help="equinox, flax or reference",
    )
    sub.add_argument(
        "--model",
        metavar="M",
        help="a model (default: digits_cnn, or that of the file)",
    )
    sub.add_argument(
        "--epochs",
        type=int,
        default=10,
        metavar="N",
        help="epochs to end; a resumed run first ends the one it was in "
        "(default: 10)",
    )
    sub.add_argument(
        "--batch-size",
        type=int,
        default=64,
        metavar="N",
        help="examples a step (default: 64)",
    )
    sub.add_argument(
        "--batch-norm",
        metavar="DIALECT",
        help="ema, batch or standard (default: the model's own)",
    )
    sub.add_argument(
        "--dtype", metavar="D", help="float32 or float64 (default: float32)"
    )
    sub.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="of initial values, masks and data order (default: 0)",
    )
    sub.add_argument(
        "--save", type=path, metavar="FILE", help="write the State at the end"
    )
    sub.add_argument(
        "--resume", type=path, metavar="FILE", help="go on from a State"
    )

    sub = command("bench", BENCH, BENCH_EXAMPLES)
    sub.add_argument(
        "--quick",
        action="store_true",
        help="few rounds of the small cases: does it run?",
    )
    sub.add_argument(
        "--json", type=path, metavar="FILE", help="write all samples"
    )

    sub = command("differences", DIFFERENCES, DIFFERENCES_EXAMPLES)
    sub.add_argument(
        "--name",
        default="",
        metavar="PART",
        help="only those whose name has this part",
    )
    sub.add_argument(
        "--json", type=path, metavar="FILE", help="write all figures"
    )
    return parser


def _hyper_parameters(options: argparse.Namespace) -> dict[str, Any]:
    if options.batch_norm is None:
        return {}
    return {"batch_norm": options.batch_norm}


def _require_file(path: pathlib.Path | None, suffix: str = "") -> None:
    """Checks a file's name before the work, not after it."""
    if path is None:
        return
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
