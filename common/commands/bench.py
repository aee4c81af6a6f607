"""`bench`: what a training step costs in each library."""

import argparse

import rich.console

from common.commands import files, shared_options

ABOUT = """
Time a training step and `fit` against hand-written JAX.

Every contender must first produce the same losses as the hand-written JAX.
They are then timed in turns, so that each sample is a ratio to hand-written
JAX at the same moment. The table shows the median ratio and the range of the
middle half of the samples. This takes some minutes; leave the machine idle
meanwhile.
"""
EXAMPLES = """
{program} bench
{program} bench --quick
{program} bench --json bench.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `bench` to its parser."""
    parser.add_argument(
        "--quick",
        action="store_true",
        help="take few samples of the smallest cases, to check that it runs",
    )
    shared_options.add_json(parser, "all samples")


def run(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `bench`."""
    from common import environment
    from common.benchmark import report, suite
    from common.rendering.files import to_json

    files.require_writable(options.json, ".json")
    found = suite.run(quick=options.quick, command=environment.command())
    console.print(*report.render(found), sep="\n")
    if options.json is not None:
        files.write(options.json, to_json(found), console)
    return 0
