"""The command line: runs one command and turns its outcome into a status.

The commands are imported inside `main`, so that Control-C is already handled
while Python imports JAX.
"""

import argparse
import contextlib
import os
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence

PROGRAM = "eqx-vs-nnx"
ABOUT = """
Build the same JAX model in Equinox and in Flax NNX, train it, carry it from
one library to the other, and check that both agree. `compare` runs if no
command is given.
"""
DEFAULT = "compare"

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: the words after the program's name; those of the process
            by default.

    Returns:
        The exit status: 0 for success, 1 if a comparison failed or a run
        diverged, 2 for bad input, 130 after Control-C, and 141 if the reader
        of a pipe has gone.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except BaseException as error:
        if not _is_interrupt(error) or "--debug" in words:
            raise
        # The message of a subclass is for callers in Python.
        saved = str(error) if type(error) is KeyboardInterrupt else ""
        print(f"interrupted{saved}", file=sys.stderr, flush=True)
        if arguments is None:
            # Python can crash in its own cleanup if XLA was interrupted while
            # it compiled. All files are closed.
            os._exit(INTERRUPTED)
        return INTERRUPTED


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether an exception is due to Control-C.

    NumPy, for one, turns the KeyboardInterrupt into a ValueError.
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _run(words: Sequence[str]) -> int:
    options = parser().parse_args(_with_default(words))

    import jax

    from common.commands import COMMANDS, user_modules
    from common.commands.terminal import Terminal
    from common.errors import HyperParameterError, NonFiniteLossError

    # A float32 trainer turns it off again for all that it traces.
    jax.config.update("jax_enable_x64", True)
    user_modules.pin_project_packages()
    try:
        with _plain_warnings():
            return COMMANDS[options.command].run(options, Terminal())
    except BrokenPipeError:
        raise
    # These are reported in one line. Anything else is a bug and keeps its
    # traceback.
    except (
        ValueError,
        HyperParameterError,
        ImportError,
        OSError,
        NonFiniteLossError,
    ) as error:
        if options.debug or _is_interrupt(error):
            raise
        Terminal(stderr=True, highlight=False).print(
            f"error: {error}", style="red", markup=False, soft_wrap=True
        )
        return 1 if isinstance(error, NonFiniteLossError) else 2


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Shows a warning of this project in one line, as an error is shown."""
    home = os.path.dirname(os.path.abspath(__file__))
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_plainly(message, category, filename, lineno, *rest):
            if category is UserWarning and filename.startswith(home):
                print(f"warning: {message}", file=sys.stderr, flush=True)
            else:
                show(message, category, filename, lineno, *rest)

        warnings.showwarning = show_plainly
        yield


def _with_default(words: Sequence[str]) -> list[str]:
    """Adds the default command to words that begin with its options."""
    if words and words[0] in ("-h", "--help", "--version"):
        return list(words)
    if not words or words[0].startswith("-"):
        return [DEFAULT, *words]
    return list(words)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    from common.commands import COMMANDS

    main_parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=ABOUT.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"`{PROGRAM} COMMAND --help` shows examples of a command.",
    )
    main_parser.add_argument(
        "--version",
        action=_PrintVersions,
        help="print the versions of this project, Python and the libraries",
    )
    commands = main_parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        about = command.ABOUT.strip()
        examples = textwrap.indent(command.EXAMPLES.strip(), "  ")
        command_parser = commands.add_parser(
            name,
            help=about.splitlines()[0],
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="examples:\n" + examples.format(program=PROGRAM),
        )
        command.add_arguments(command_parser)
        command_parser.add_argument(
            "--debug",
            action="store_true",
            help="show the traceback of an error",
        )
    return main_parser


class _PrintVersions(argparse.Action):
    """Prints versions, which are read only when this option is given."""

    def __init__(self, option_strings, dest, **options):
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser, *_):
        import platform
        from importlib import metadata

        from common import environment

        try:
            version = metadata.version(PROGRAM)
        except metadata.PackageNotFoundError:  # run from a checkout
            version = "(not installed)"
        print(f"{PROGRAM} {version}")
        print(f"Python {platform.python_version()}")
        for name, library_version in environment.versions().items():
            print(f"{name} {library_version}")
        parser.exit()
