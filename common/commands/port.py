"""`port`: carries the arrays of one model to another."""

import argparse
import pathlib
import re
from typing import Any

import rich.console

from common.commands import files, user_models, user_modules

ABOUT = """
Carry the arrays of one model to another, and save them.

SOURCE is a file of arrays, or package.module:name for a model of Equinox or
Flax NNX or a function that returns one; TARGET is such a name. Arrays of
equal names are matched, and the types of their layers say how each is
rearranged; --rules FILE says the rest, as `align` writes it. Prints the plan:
every array with its source. Nothing is written if an array is left over.
"""
EXAMPLES = """
{program} port old.model:make new.model:make --save new.safetensors
{program} port ours:load theirs:make --rules map.txt --save new.safetensors
{program} port weights.safetensors theirs:make
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `port` to its parser."""
    parser.add_argument(
        "source", metavar="SOURCE", help=f"{user_models.MODEL}, or a file"
    )
    parser.add_argument("target", metavar="TARGET", help=user_models.MODEL)
    parser.add_argument(
        "--rules",
        type=pathlib.Path,
        metavar="FILE",
        help="rules for the arrays whose names differ",
    )
    parser.add_argument(
        "--ignore",
        nargs="+",
        default=[],
        metavar="NAME",
        help="arrays of SOURCE that go nowhere",
    )
    parser.add_argument(
        "--keep",
        nargs="+",
        default=[],
        metavar="NAME",
        help="arrays of TARGET to leave alone",
    )
    parser.add_argument(
        "--batch-norm",
        metavar="FOR",
        help="resume (to continue training) or serve (for inference), where "
        "one copy of the running statistics cannot do both",
    )
    parser.add_argument(
        "--save",
        type=pathlib.Path,
        metavar="FILE",
        help="write the arrays of TARGET, by their paths, as safetensors",
    )


def run(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `port`."""
    from common.porting import plan_port
    from common.porting import port as port_arrays

    files.require_writable(options.save, ".safetensors")
    with user_modules.refuse_clashes():
        source = _source(options.source)
        target = user_models.model(options.target)
        settings: dict[str, Any] = {
            "rules": user_models.rules(options.rules),
            "ignore": options.ignore,
            "keep": options.keep,
            "batch_norm": options.batch_norm,
        }
        try:
            plan = plan_port(source, target, **settings)
            ported = port_arrays(source, target, **settings)
        except ValueError as error:
            raise ValueError(_name_options(str(error))) from error
    console.print(str(plan), markup=False, highlight=False, soft_wrap=True)
    if options.save is not None:
        _save(ported, options.save)
        console.print(f"Wrote {options.save}.", soft_wrap=True)
    return 0


def _source(name: str) -> Any:
    """Returns a model, or the path of a file or a directory.

    Raises:
        ValueError: if the name is neither that of a module nor of a file.
    """
    path = pathlib.Path(name)
    if ":" not in name:
        files.require_exists(
            path, "SOURCE", "Write package.module:name for a model"
        )
    return path if path.exists() else user_models.model(name)


def _name_options(message: str) -> str:
    """Replaces the arguments of `port` by the options of this command."""
    message = message.replace(
        "`align(source, target, x)` finds the rules",
        "The command `align` with `--rules FILE` writes the rules",
    ).replace("`diff` shows", "`diff --weights symmetric` shows")
    message = re.sub(r"\bbatch_norm='(\w+)'", r"`--batch-norm \1`", message)
    return re.sub(
        r"`(batch_norm|ignore|keep|rules)`",
        lambda found: f"`--{found[1].replace('_', '-')}`",
        message,
    )


def _save(native: Any, path: pathlib.Path) -> None:
    """Writes all arrays of a model but its random state."""
    from common.layouts import Role
    from common.native import NativeModel
    from common.tensors import write_stored

    model = NativeModel(native)
    arrays = {
        name: x
        for name, x in model.arrays().items()
        if model.infos[name].role is not Role.RANDOM_STATE
    }
    write_stored(path, arrays)
