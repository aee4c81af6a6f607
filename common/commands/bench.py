"""`bench`: what a training step costs in each library."""

import argparse
import ast
from typing import Any

import rich.console

from common.commands import files, shared_options

ABOUT = """
Time a training step and `fit` against hand-written JAX.

Every contender must first produce the same losses as the hand-written JAX.
They are then timed in turns, so that each sample is a ratio to hand-written
JAX at the same moment. The table shows the median ratio and the range of the
middle half of the samples. This takes some minutes; leave the machine idle
meanwhile.

With --devices, --model or --set, one model is measured on each number of
devices: the first call, a step, the memory of the compiled program, and the
bytes that each device sends. On a CPU, a number for which the process has too
few devices is measured in a new process with virtual devices. On a GPU or TPU
the first devices are used.
"""
EXAMPLES = """
{program} bench
{program} bench --quick
{program} bench --json bench.json
{program} bench --devices 1,2,4,8 --shard replicated,fsdp
{program} bench --model digits_cnn --devices 2 --json cnn.json
{program} bench --model deep_mlp --set depth=100 --set depth=100 scan=True
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `bench` to its parser."""
    parser.add_argument(
        "--quick",
        action="store_true",
        help="take few samples of the smallest cases, to check that it runs",
    )
    parser.add_argument(
        "--devices",
        metavar="N,...",
        help="numbers of devices, such as 1,2,4,8 (default: 1)",
    )
    parser.add_argument(
        "--shard",
        metavar="S,...",
        help="replicated, fsdp or both (default: replicated)",
    )
    parser.add_argument(
        "--model",
        metavar="M",
        help="a model (default: a deep_mlp with 4 blocks of 256 features)",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="append",
        metavar="NAME=VALUE",
        help="hyper-parameters of the model; repeat the option to compare "
        "several",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="examples per step over all devices (default: 64)",
    )
    shared_options.add_json(parser, "all samples")


def run(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `bench`."""
    from common import environment
    from common.rendering.files import to_json

    files.require_writable(options.json, ".json")
    command = environment.command()
    chosen = (
        options.devices,
        options.shard,
        options.model,
        options.set,
        options.batch_size,
    )
    if any(option is not None for option in chosen):
        from common.benchmark import scaling, scaling_report

        found: Any = scaling.run(
            options.model,
            [hyper_parameters(words) for words in options.set or ()],
            devices=counts(options.devices or "1"),
            shards=(options.shard or scaling.REPLICATED).split(","),
            batch_size=(
                scaling.BATCH_SIZE
                if options.batch_size is None
                else options.batch_size
            ),
            quick=options.quick,
            command=command,
        )
        console.print(*scaling_report.render(found), sep="\n")
    else:
        from common.benchmark import report, suite

        found = suite.run(quick=options.quick, command=command)
        console.print(*report.render(found), sep="\n")
    if options.json is not None:
        files.write(options.json, to_json(found), console)
    return 0


def counts(text: str) -> list[int]:
    """Reads numbers of devices.

    Raises:
        ValueError: if they are not positive integers.
    """
    words = text.split(",")
    if not all(word.isdecimal() and int(word) for word in words):
        raise ValueError(
            f"--devices: got {text!r}, expected positive integers with commas "
            "between them. Write them as in 1,2,4,8."
        )
    return [int(word) for word in words]


def hyper_parameters(words: list[str]) -> dict[str, Any]:
    """Reads hyper-parameters such as `depth=100` or `batch_norm=torch`.

    A value that is no Python literal is text.

    Raises:
        ValueError: for a word without a name and a value.
    """
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name.isidentifier() and equals and value):
            raise ValueError(
                f"--set: got {word!r}, expected NAME=VALUE. Write it as in "
                "depth=100."
            )
        try:
            found[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            found[name] = value
    return found
