"""`train`: trains one model in one backend, and continues a saved run."""

import argparse
import pathlib
import re
from typing import Any

import rich.console

from common.commands import (
    device_options,
    files,
    optimizer_options,
    shared_options,
)
from common.commands.terminal import count
from common.errors import BatchError

ABOUT = """
Train a model on its data set and evaluate it on held-out examples.

digits_cnn trains on scikit-learn's 1,797 handwritten digits, a fifth of them
held out. The other models train on the sine waves of Equinox's example. The
file is a State in safetensors: either library can continue from it, with the
model, optimizer and batch size that the file records. Control-C ends the run
after the current steps and still writes the file. Progress is shown on the
error stream.
"""
EXAMPLES = """
{program} train --backend equinox --epochs 5 --save run.safetensors
{program} train --backend flax --resume run.safetensors --epochs 5
{program} train --backend flax --model stateful_mlp --epochs 200
{program} train --backend flax --optimizer adamw --learning-rate 3e-4
{program} train --backend equinox --devices 8 --shard fsdp --epochs 2
{program} train --backend equinox --compute-dtype bfloat16
"""
DEFAULT_MODEL = "digits_cnn"
DEFAULT_DTYPE = "float32"
DEFAULT_SEED = 0
DEFAULT_BATCH_SIZE = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `train` to its parser."""
    parser.add_argument(
        "--backend",
        required=True,
        metavar="B",
        help="equinox, flax or reference",
    )
    parser.add_argument(
        "--model",
        metavar="M",
        help=f"a model (default: that of the resumed file, or "
        f"{DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=10,
        metavar="N",
        help="epochs to finish; a resumed run finishes the epoch that it "
        "stopped in first, which counts as one (default: 10)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="examples per step (default: that of the resumed file, or "
        f"{DEFAULT_BATCH_SIZE})",
    )
    optimizer_options.add_options(parser)
    device_options.add_options(parser)
    shared_options.add_batch_norm(parser, "that of the model")
    parser.add_argument(
        "--dtype",
        metavar="D",
        help=f"float32 or float64 (default: {DEFAULT_DTYPE})",
    )
    parser.add_argument(
        "--compute-dtype",
        metavar="D",
        help="bfloat16 or float16, for mixed precision: parameters and "
        "statistics stay float32 (default: that of the parameters)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="seed of the initial values, dropout masks and data order "
        f"(default: {DEFAULT_SEED})",
    )
    parser.add_argument(
        "--save",
        type=pathlib.Path,
        metavar="FILE",
        help="write the State to a file at the end",
    )
    parser.add_argument(
        "--resume",
        type=pathlib.Path,
        metavar="FILE",
        help="continue from the State in a file",
    )


def run(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `train`."""
    from common.training import data

    files.require_writable(options.save)
    files.require_exists(
        options.resume, "--resume", "Write it with `train --save`"
    )
    trainer = _resume(options, console) if options.resume else _start(options)
    dataset = data.dataset(trainer.spec, dtype=trainer.dtype)
    start = trainer.steps_taken
    _fit(trainer, dataset, options, console)
    _save(trainer, options.save, console)
    metrics = trainer.evaluate(dataset.test_xs, dataset.test_ys)
    end = trainer.steps_taken
    console.print(
        f"{trainer.spec.name} in {trainer.backend.name}: "
        f"{count(end - start, 'step')} ({end} in total) on "
        f"{count(len(dataset.train_xs), 'example')}",
        highlight=False,
    )
    shown = ", ".join(f"{k} {float(v):.4f}" for k, v in metrics.items())
    console.print(
        f"{count(len(dataset.test_xs), 'held-out example')}: {shown}",
        highlight=False,
    )
    return 0


def _fit(
    trainer: Any,
    dataset: Any,
    options: argparse.Namespace,
    console: rich.console.Console,
) -> None:
    """Trains, and saves the State if the run ends early.

    Raises:
        KeyboardInterrupt: with the number of steps and the file that was
            written.
    """
    start = trainer.steps_taken
    try:
        trainer.fit(
            dataset.train_xs,
            dataset.train_ys,
            epochs=options.epochs,
            batch_size=options.batch_size,
        )
    except BatchError:  # before the first step: there is nothing to save
        raise
    except KeyboardInterrupt:
        steps = count(int(trainer.state().step) - start, "step")
        if options.save is None:
            raise KeyboardInterrupt(
                f" after {steps}; nothing was saved, because there was no "
                "--save FILE"
            ) from None
        trainer.save(options.save)
        raise KeyboardInterrupt(
            f" after {steps}; wrote {options.save}, continue with --resume "
            f"{options.save}"
        ) from None
    except BaseException:
        _save(trainer, options.save, console)
        raise


def _save(
    trainer: Any, path: pathlib.Path | None, console: rich.console.Console
) -> None:
    if path is not None:
        trainer.save(path)
        console.print(f"Wrote {path}.", soft_wrap=True)


def _start(options: argparse.Namespace) -> Any:
    """Builds the trainer of a new run."""
    from common.models import find_spec
    from common.training.building import build

    if options.batch_size is None:
        options.batch_size = DEFAULT_BATCH_SIZE
    spec = find_spec(
        options.model or DEFAULT_MODEL,
        shared_options.hyper_parameters(options),
    )
    return build(
        spec,
        backend=options.backend,
        dtype=options.dtype or DEFAULT_DTYPE,
        compute_dtype=options.compute_dtype,
        seed=DEFAULT_SEED if options.seed is None else options.seed,
        optimizer=optimizer_options.choose_optimizer(
            options, spec.optimizer()
        ),
        **device_options.choose_devices(options),
    )


def _resume(options: argparse.Namespace, console: rich.console.Console) -> Any:
    """Builds the trainer of a saved run, in any backend."""
    from common.training.loading import load

    devices = device_options.choose_devices(options)
    try:
        trainer = load(options.resume, backend=options.backend, **devices)
    except ValueError as error:
        raise ValueError(_name_python(str(error))) from error
    _require_same_run(options, trainer)
    if options.batch_size is None:
        options.batch_size = trainer.fitted.get(
            "batch_size", DEFAULT_BATCH_SIZE
        )
    chosen = optimizer_options.choose_optimizer(options, trainer.optimizer)
    note = optimizer_options.require_same(options, trainer.optimizer, chosen)
    if note is None:
        return trainer
    console.print(note, markup=False, highlight=False, soft_wrap=True)
    state = trainer.state()
    return trainer.with_optimizer(chosen).load(state)


def _name_python(message: str) -> str:
    """Says where to pass what no option of this command can name."""
    return re.sub(
        r"Pass `\w+=` what the run was built with\.",
        "Continue the run in Python with `common.load`, which takes what it "
        "was built with.",
        message,
    )


def _require_same_run(options: argparse.Namespace, trainer: Any) -> None:
    """Refuses options that contradict the header of a file."""
    for name, got, stored in (
        ("model", options.model, trainer.spec.name),
        ("dtype", options.dtype, trainer.dtype),
        (
            "compute-dtype",
            options.compute_dtype,
            trainer.settings.compute_dtype,
        ),
        ("seed", options.seed, trainer.seed),
        (
            "batch-norm",
            options.batch_norm,
            getattr(trainer.spec, "batch_norm", None),
        ),
    ):
        if got not in (None, stored):
            raise ValueError(
                f"--{name}: got {got!r}, expected {stored!r} as in "
                f"{str(options.resume)!r}. Leave --{name} out when you resume."
            )
