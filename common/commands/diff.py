"""`diff`: the source lines at which two functions of the user diverge."""

import argparse
import inspect
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

ABOUT = """
Find the source lines at which two JAX functions diverge.

LEFT and RIGHT are package.module:name, imported from the working directory.
Each names a function, or an Equinox or Flax model to call. Both are called
with the same inputs: the arrays of an .npz file, in its order, or random
arrays of given shapes. Both run equation by equation. Their values are
matched numerically, whatever the layout, and the search walks back from the
outputs to the first value that only one side has. Exits with 0 if the outputs
agree and with 1 if not.

With `--weights symmetric`, LEFT and RIGHT name two models, or functions that
return one, with unrelated weights. They are filled with weights that are the
same in both, whatever the mapping between their arrays is.
"""
EXAMPLES = """
{program} diff old.model:forward new.model:forward --inputs batch.npz
{program} diff ours:step theirs:step --inputs shape=8,32,32,3 shape=8
{program} diff ours:f theirs:f --inputs shape=4,16 --html diff.html
{program} diff ours:make theirs:make --inputs shape=4,16 --weights symmetric
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `diff` to its parser."""
    parser.add_argument("left", metavar="LEFT", help="package.module:name")
    parser.add_argument("right", metavar="RIGHT", help="package.module:name")
    batches.add_options(parser)
    parser.add_argument(
        "--dtype",
        default="float64",
        metavar="D",
        help="dtype to run both in: float64, float32, or none for JAX's "
        "default (default: float64, so that rounding hides nothing)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the random inputs (default: 0)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="T",
        help="largest relative error of values that count as equal (default: "
        "that of the dtypes that they passed through)",
    )
    parser.add_argument(
        "--weights",
        metavar="W",
        help="symmetric, for two models with unrelated weights",
    )
    shared_options.add_json(parser, "all errors")
    shared_options.add_html(parser, "both sources and a plot")


def run(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `diff`."""
    import jax

    from common import environment
    from common.comparison import functions
    from common.divergence import page
    from common.errors import choose

    files.require_writable(options.json, ".json")
    files.require_writable(options.html, ".html")
    dtypes = {"float64": "float64", "float32": "float32", "none": None}
    if options.dtype not in dtypes:
        raise choose("--dtype", options.dtype, dtypes)
    if options.weights not in (None, *functions.WEIGHTS):
        raise choose("--weights", options.weights, functions.WEIGHTS)
    find = arguments.function if options.weights is None else user_models.model
    with user_modules.refuse_clashes(), user_models.report_type_errors():
        inputs, right_inputs = batches.read(options)
        left, right = find(options.left), find(options.right)
        if options.weights is None:
            _require_parameters(options.left, left)
            _require_parameters(options.right, right)
        else:
            inputs = [batches.batch(inputs)]
            right_inputs = [batches.batch(right_inputs)]
        with (
            console.status("Running both"),
            # In float64, `diff` runs code of narrower dtypes as it is.
            jax.enable_x64(
                options.dtype == "float64"
                and environment.flag("jax_enable_x64")
            ),
        ):
            found = functions.diff(
                left,
                right,
                *inputs,
                right_args=right_inputs,
                dtype=dtypes[options.dtype],
                tolerance=options.tolerance,
                weights=options.weights,
            )
    console.print(str(found), markup=False, highlight=False, soft_wrap=True)
    facts = environment.environment()
    if options.json is not None:
        files.write(options.json, page.to_json(found, facts), console)
    if options.html is not None:
        names = (options.left, options.right)
        files.write(options.html, page.render(found, names, facts), console)
    return 0 if found.ok else 1


def _require_parameters(name: str, function: Any) -> None:
    """Refuses a function that takes no inputs, such as one that makes a model.

    Args:
        name: what the user typed, for the message.
        function: that is to be called with the inputs.

    Raises:
        ValueError: if the function has no parameters.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a callable that does not describe itself
        return
    if not parameters:
        raise ValueError(
            f"function {name!r}: got one without parameters, expected one "
            "that takes the inputs. If both functions return models, add "
            "--weights symmetric."
        )
