"""The command line: compare, diff, train, bench, layers, differences."""

import argparse
import pathlib
import sys
import textwrap
from collections.abc import Sequence

import rich.console

from common import commands
from common.commands import PAIRS as PAIRS
from common.errors import HyperParameterError, NonFiniteLossError

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

DIFF = """
Find the two source lines where two JAX functions part.

LEFT and RIGHT are PACKAGE.MODULE:NAME, found from this folder: a function, or
an Equinox or Flax model to be called.
Both are called with the same inputs: the arrays of an .npz file in its order,
or random ones of given shapes. They run equation by equation; values are
matched by their numbers, whatever their layout, and the walk back from the
outputs ends where only one side has a value. Exits with 0 if the outputs
agree, 1 if not.
"""
DIFF_EXAMPLES = """
{program} diff old.model:forward new.model:forward --inputs batch.npz
{program} diff ours:step theirs:step --inputs shape=8,32,32,3 shape=8
{program} diff ours:f theirs:f --inputs shape=4,16 --html parts.html
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

LAYERS = """
Show every layer of both libraries, and how far each is from its meaning.

A row is one meaning: the public layers that have it, and how each library
gets there (nothing said: the stock layer as it comes; settings: with other
than its defaults; own: a layer of this project; composition: of the library's
parts). Each number is the largest difference of any output, gradient or
buffer from the definition in float64, in three training calls and one at
inference; u: units in the last place of the dtype; *: a known difference,
see `differences`. Exits with 0 only where all else agrees.
"""
LAYERS_EXAMPLES = """
{program} layers
{program} layers --name norm
{program} layers --name conv --dtype float64 float32 bfloat16
{program} layers --json layers.json
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: the words after the program's name; those of the process
            by default.

    Returns:
        The exit status: 0 for success, 1 for a disagreement or a run that
        diverged, 2 for bad input, 130 after Control-C.
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
    except FAILURES as error:
        if options.debug:
            raise
        what = str(error) or "interrupted"
        rich.console.Console(stderr=True, highlight=False).print(
            f"error: {what}", style="red", markup=False
        )
        if isinstance(error, KeyboardInterrupt):
            return 130
        return 1 if isinstance(error, NonFiniteLossError) else 2


# What is said in a line. Anything else is a bug, and shows where it is from.
FAILURES = (
    ValueError,
    HyperParameterError,
    ImportError,
    OSError,
    NonFiniteLossError,
    KeyboardInterrupt,
)
COMMANDS = {
    "compare": commands.compare,
    "diff": commands.diff,
    "train": commands.train,
    "bench": commands.bench,
    "layers": commands.layers,
    "differences": commands.differences,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=ABOUT.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"`{PROGRAM} COMMAND --help` teaches a command by example.",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, about: str, examples: str):
        about = about.strip()
        sub = subparsers.add_parser(
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
        help="ema, batch, standard or torch (default: each model's own)",
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

    sub = command("diff", DIFF, DIFF_EXAMPLES)
    sub.add_argument("left", metavar="LEFT", help="package.module:name")
    sub.add_argument("right", metavar="RIGHT", help="package.module:name")
    sub.add_argument(
        "--inputs",
        nargs="+",
        required=True,
        metavar="I",
        help="FILE.npz, or shape=8,32,32,3 for random normals of a shape",
    )
    sub.add_argument(
        "--dtype",
        default="float64",
        metavar="D",
        help="to run both in: float64, float32, or none for JAX's own default "
        "(default: float64, so that rounding hides nothing)",
    )
    sub.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of random inputs"
    )
    sub.add_argument(
        "--json", type=path, metavar="FILE", help="write all figures"
    )
    sub.add_argument(
        "--html",
        type=path,
        metavar="FILE",
        help="write a page with both sources and a plot",
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
        help="ema, batch, standard or torch (default: the model's own)",
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

    sub = command("layers", LAYERS, LAYERS_EXAMPLES)
    sub.add_argument(
        "--name",
        default="",
        metavar="PART",
        help="only rows whose name, family or public layers have this part",
    )
    sub.add_argument(
        "--dtype",
        nargs="+",
        metavar="D",
        default=["float64", "float32"],
        help="float64, float32, bfloat16 (default: the first two)",
    )
    sub.add_argument(
        "--json", type=path, metavar="FILE", help="write all figures"
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
