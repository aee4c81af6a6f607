"""`train`: trains one model in one backend, and continues a saved run."""

import argparse
import pathlib
from typing import Any

import rich.console

from common.commands import files, shared_options
from common.commands.terminal import count
from common.errors import BatchError, StateError

ABOUT = """
Train a model on its data set and evaluate it on held-out examples.

digits_cnn trains on scikit-learn's 1,797 handwritten digits, a fifth of them
held out. The other models train on the sine waves of Equinox's example. The
file is a State in safetensors: either library can continue from it.
Control-C ends the run after the current steps and still writes the file.
"""
EXAMPLES = """
{program} train --backend equinox --epochs 5 --save run.safetensors
{program} train --backend flax --resume run.safetensors --epochs 5
{program} train --backend flax --model stateful_mlp --epochs 200
"""
DEFAULT_MODEL = "digits_cnn"
DEFAULT_DTYPE = "float32"
DEFAULT_SEED = 0
# What the header of a file must contain to build its trainer again.
HEADER = ("spec", "hyper_parameters", "dtype", "seed")


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
        default=64,
        metavar="N",
        help="examples per step (default: 64)",
    )
    shared_options.add_batch_norm(parser, "that of the model")
    parser.add_argument(
        "--dtype",
        metavar="D",
        help=f"float32 or float64 (default: {DEFAULT_DTYPE})",
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
    trainer = _resume(options) if options.resume else _start(options)
    dataset = data.dataset(trainer.spec, dtype=trainer.dtype)
    start = int(trainer.state().step)
    _fit(trainer, dataset, options, console)
    _save(trainer, options.save, console)
    metrics = trainer.evaluate(dataset.test_xs, dataset.test_ys)
    end = int(trainer.state().step)
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
    start = int(trainer.state().step)
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
    from common.training.building import build

    return build(
        options.model or DEFAULT_MODEL,
        backend=options.backend,
        dtype=options.dtype or DEFAULT_DTYPE,
        seed=DEFAULT_SEED if options.seed is None else options.seed,
        **shared_options.hyper_parameters(options),
    )


def _resume(options: argparse.Namespace) -> Any:
    """Builds the trainer of a saved run, in any backend."""
    from common.state import State
    from common.training.building import build

    _, header = State.read(options.resume)
    missing = [key for key in HEADER if key not in header]
    if missing:
        raise StateError(
            f"state file {str(options.resume)!r}: got a header without "
            f"{', '.join(missing)}, expected {', '.join(HEADER)}. Write the "
            "file with `Trainer.save`."
        )
    _require_same_run(options, header)
    trainer = build(
        header["spec"],
        backend=options.backend,
        dtype=header["dtype"],
        seed=header["seed"],
        **header["hyper_parameters"],
    )
    return trainer.load(options.resume)


def _require_same_run(
    options: argparse.Namespace, header: dict[str, Any]
) -> None:
    """Refuses options that contradict the header of a file."""
    for name, got, stored in (
        ("model", options.model, header["spec"]),
        ("dtype", options.dtype, header["dtype"]),
        ("seed", options.seed, header["seed"]),
        (
            "batch-norm",
            options.batch_norm,
            header["hyper_parameters"].get("batch_norm"),
        ),
    ):
        if got not in (None, stored):
            raise ValueError(
                f"--{name}: got {got!r}, expected {stored!r} as in "
                f"{str(options.resume)!r}. Leave --{name} out when you resume."
            )
