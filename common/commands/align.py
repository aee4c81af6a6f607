"""`align`: which arrays of one model are which of another."""

import argparse
import pathlib

import rich.console

from common.commands import batches, files, user_models, user_modules

ABOUT = """
Find which arrays of one model are which arrays of another.

LEFT and RIGHT are package.module:name, imported from the working directory:
models of Equinox or Flax NNX, or functions that return one. Names, containers
and axis orders may differ, and the weights too: both models are run to find
the mapping, which random weights then prove. Exits with 0 if the models are
the same function, and with 1 if not, after naming the lines that differ.
"""
EXAMPLES = """
{program} align old.model:make new.model:make --inputs shape=8,32
{program} align ours:make theirs:make --inputs batch.npz --rules map.txt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `align` to its parser."""
    user_models.add_pair(parser)
    batches.add_options(parser)
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the random inputs (default: 0)",
    )
    parser.add_argument(
        "--rules",
        type=pathlib.Path,
        metavar="FILE",
        help="write the mapping as rules, for `port` and `compare`",
    )


def run(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `align`."""
    from common.alignment import AlignmentError
    from common.alignment import align as align_models

    files.require_writable(options.rules)
    with user_modules.refuse_clashes(), user_models.report_type_errors():
        inputs = [batches.batch(arrays) for arrays in batches.read(options)]
        left = user_models.model(options.left)
        right = user_models.model(options.right)
        try:
            found = align_models(
                left, right, left_inputs=inputs[0], right_inputs=inputs[1]
            )
        except AlignmentError as error:
            console.print(
                str(error), markup=False, highlight=False, soft_wrap=True
            )
            return 1
    console.print(str(found), markup=False, highlight=False, soft_wrap=True)
    if options.rules is not None:
        files.write(options.rules, f"{found.rules}\n", console)
    return 0 if found.proved else 1
